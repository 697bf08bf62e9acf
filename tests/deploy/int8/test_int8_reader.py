"""What one loop computes together, by the roles in the file, against its naive twin: each ONNX operator by itself."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from int8_networks import VARIANTS, exported

from helpers import trained_like
from trevsnn.data.loading import real_items
from trevsnn.deploy.folded import fold
from trevsnn.deploy.int8 import operators
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.deploy.onnx.roles import read_loops, write_role
from trevsnn.errors import RunError
from trevsnn.run.load import load_run

EARLIER = Path(__file__).parents[2] / "earlier" / "v0.1.0"


def rewritten(path, change):
    """A copy of an ONNX file with its nodes changed."""
    model = onnx.load(path)
    change(list(model.graph.node))
    other = path.with_name("rewritten.onnx")
    onnx.save(model, other)
    return other


def without_roles(nodes):
    for node in nodes:
        del node.metadata_props[:]


def mirrored(nodes):
    """Every addition and product with its operands the other way round."""
    for node in nodes:
        if node.op_type in ("Add", "Mul"):
            node.input[:] = node.input[::-1]


def assert_twins(path, x):
    """An engine that goes by roles, and one that runs the operators of the same file one by one."""
    with pytest.warns(UserWarning, match="rewritten.onnx does not say which of its operators belong together"):
        twin = SpikeDriven(rewritten(path, without_roles))
    for crossover in (0.0, 0.3, 1.1):
        engine = SpikeDriven(path, crossover=crossover)
        assert len(engine.operators) < 0.6 * len(twin.operators)
        for part in (x, x[:1]):
            assert torch.equal(engine(part), twin(part))
    assert not twin.rates


@pytest.mark.parametrize(
    "options",
    [
        *VARIANTS, {"channels": (6, 8)}, {"channels": (4, 6, 8, 10), "timesteps": 4}, {"timesteps": 1},
        {"encoding": "grouped", "timesteps": 3, "slope": 0.2}, {"input": "event", "kernel_size": 5, "encoder_stride": 2},
    ],
)  # fmt: skip
def test_loops_compute_what_their_operators_do_one_by_one(options, tmp_path):
    path, x = exported(fold(trained_like(**options).float()), tmp_path)
    assert_twins(path, x)


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (11, 13)),
        ({"kernel_size": 5}, (11, 13)),
        ({"links": "all", "channels": (4, 6, 8, 10)}, (11, 15)),  # four times as large as the top level, cropped
        ({"links": "all", "channels": (4, 6, 8, 10)}, (9, 10)),  # three times, and something between three and four
    ],
)
def test_odd_sizes_too(options, size, tmp_path):
    model = trained_like(**options).float()
    x = torch.randn(4, model.config.in_chans, *size)
    export_integer(fold(model), x, tmp_path / "model.onnx")
    assert_twins(tmp_path / "model.onnx", x)


def test_the_order_of_operands_tells_nothing(tmp_path):
    path, x = exported(fold(trained_like().float()), tmp_path)
    assert torch.equal(SpikeDriven(rewritten(path, mirrored))(x), SpikeDriven(path)(x))


def test_every_node_has_a_role_and_onnx_runtime_ignores_it(tmp_path):
    path, x = exported(fold(trained_like().float()), tmp_path)
    nodes = onnx.load(path).graph.node
    loops = read_loops(nodes)
    assert loops is not None
    assert sum(map(len, loops)) == len(nodes)
    onnx.checker.check_model(path, full_check=True)
    assert torch.equal(OnnxModel(path)(x), OnnxModel(rewritten(path, without_roles))(x))


def test_a_loop_of_another_version_is_said(tmp_path):
    path, _ = exported(fold(trained_like().float()), tmp_path)
    other = rewritten(path, lambda nodes: write_role(nodes[-1], "crop", "logits"))
    with pytest.raises(RunError, match="holds a loop of crop, which this version of trevsnn does not know: export"):
        SpikeDriven(other)
    with pytest.raises(RunError, match="holds an operator Relu, which the spike-driven engine does not have"):
        operators.operation(onnx.helper.make_node("Relu", ["x"], ["y"]), [])


def test_an_export_of_version_0_1_0_gives_the_same_logits():
    model, config, _, _ = load_run(EARLIER / "export", "last")
    x = real_items(config.data, config.model.timesteps, 8)
    path = EARLIER / "export" / "model-int8.onnx"
    with pytest.warns(UserWarning, match="files of version 0.1.0 do not: .* export the model again"):
        logits = SpikeDriven(path, model)(x)
    expected = json.loads((EARLIER / "expected.json").read_text())["logits"]
    for engine in ("spikes", "onnx-int8"):
        torch.testing.assert_close(logits, torch.tensor(expected[f"export last {engine}"]), rtol=1e-6, atol=1e-6)
