"""The float32 file in ONNX Runtime, against the folded network in PyTorch and against the file of PyTorch's own exporter."""

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from helpers import example, trained_like
from trevsnn.deploy.folded import fold, inference_spike
from trevsnn.deploy.onnx.float32 import export_float32
from trevsnn.deploy.onnx.graph import Graph, Map
from trevsnn.deploy.onnx.model import OnnxModel

INFO = onnx.helper.make_tensor_value_info


@pytest.fixture
def made(tmp_path):
    """Makes a folded network, its items, and its file in ONNX Runtime."""

    def make(**options):
        folded = fold(trained_like(**options).float())
        export_float32(folded, tmp_path / "model.onnx", "of the weights", {"size": "[1, 2]"})
        return folded, example(folded.config).float(), OnnxModel(tmp_path / "model.onnx")

    return make


@pytest.mark.parametrize(
    "options",
    [
        {}, {"slope": 0.3}, {"encoding": "grouped", "timesteps": 3}, {"encoder_stride": 4, "kernel_size": 5},
        {"encoder_stride": 2, "slope": 0.5, "encoding": "grouped"}, {"alphas": "one", "timesteps": 1},
        {"input": "event"}, {"input": "event", "timesteps": 3}, {"input": "event", "readout": "mean"},
        {"input": "event", "readout": "mean", "slope": 0.3, "encoder_stride": 2},
    ],
    ids=str,
)  # fmt: skip
@torch.no_grad()
def test_onnx_runtime_computes_the_logits_of_the_folded_network(made, options):
    folded, x, served = made(**options)
    for batch in (x, x[:1], torch.cat([x, 2 * x])):
        torch.testing.assert_close(served(batch), folded(batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(12, 12), (9, 10)])  # from (3, 3) to (9, 10) no pixel is repeated four times
@torch.no_grad()
def test_onnx_has_all_links_and_no_alphas(made, size):
    folded, _, served = made(channels=(6, 8, 8, 10), timesteps=3, links="all", alphas="one")
    x = torch.randn(16, 3, *size)
    close = ((served(x) - folded(x)).abs() < 1e-5).all(1)
    assert close.sum() >= 15  # of one a potential may be at the threshold


@pytest.mark.filterwarnings("ignore")
@torch.no_grad()
def test_the_logits_are_those_of_the_file_that_pytorch_s_exporter_writes(made, tmp_path):
    pytest.importorskip("onnxscript")
    folded, x, served = made(channels=(4, 6), encoder_stride=2)
    torch.onnx.export(
        folded, (x,), tmp_path / "theirs.onnx", dynamo=True, external_data=False, input_names=["input"], output_names=["logits"], verbose=False
    )  # fmt: skip
    theirs = OnnxModel(tmp_path / "theirs.onnx")(x)
    torch.testing.assert_close(served(x), theirs, rtol=1e-6, atol=1e-6)
    assert theirs.std() > 0.01


@pytest.mark.parametrize("divisor", [1, 2, 3, 4])
def test_spikes_are_the_network_s(divisor):
    """At the threshold and at the floats beside it; of NaN, which no input may hold, as programs of torch.export have them."""
    half = np.float32(0.5 * divisor)
    inf = np.float32(np.inf)
    values = np.array([half, np.nextafter(half, -inf), np.nextafter(half, inf), -half, 0, 9, inf, -inf], np.float32)
    graph = Graph()
    spikes = graph.spikes(Map(graph, "v", 1), divisor)
    real = onnx.TensorProto.FLOAT
    made = onnx.helper.make_graph(
        graph.nodes, "g", [INFO("v", real, ["n"])], [INFO(spikes.name, real, ["n"])], graph.constants
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"v": values})
    assert found.tolist() == inference_spike(torch.from_numpy(values) / divisor).tolist() == [1, 0, 1, 0, 0, 1, 1, 0]
    assert session.run(None, {"v": np.array([np.nan], np.float32)})[0].tolist() == [0]


def test_the_file_holds_every_weight_once_by_its_name_and_says_nothing_of_its_maker(made, tmp_path):
    folded, _, served = made(timesteps=3)
    model = onnx.load(tmp_path / "model.onnx")
    assert (model.ir_version, [(entry.domain, entry.version) for entry in model.opset_import]) == (10, [("", 21)])
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    parameters = dict(folded.named_parameters())
    assert parameters.keys() <= constants.keys()
    assert all(np.array_equal(constants[name], tensor.numpy()) for name, tensor in parameters.items())
    rest = sum(array.size for array in constants.values()) - sum(tensor.numel() for tensor in parameters.values())
    assert 0 <= rest < 200  # numbers alone
    assert served.session.get_modelmeta().custom_metadata_map == {"trevsnn": "of the weights", "size": "[1, 2]"}
    assert not any(node.metadata_props or node.doc_string for node in model.graph.node)


def test_what_several_nodes_need_is_computed_once(made, tmp_path):
    """Spikes of a state that two levels read, and which pixels are taken at three timesteps."""
    made(channels=(4, 6, 6), timesteps=4)
    counts = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert counts["Range"] == 2 * 2  # of two pairs of levels, rows and columns
    # Two blocks of two thresholds each at 12 places; states of the two lower levels, and of the top one for the level below
    # it at the next timestep or for the head.
    assert counts["GreaterOrEqual"] == 4 * 12 + 2 * 4 + 4


def test_what_the_file_does_not_take_is_refused(made):
    _, x, served = made(input="event")
    assert served.shape == [2, 2, "height", "width"]
    with pytest.raises(
        ValueError, match=r"shape \(6, 1, 2, 12, 12\); this ONNX file takes \('B', 2, 2, 'height', 'width'\)"
    ):
        served(x[:, :1])
    for number in (torch.nan, torch.inf):
        with pytest.raises(ValueError, match="the input holds NaN or an infinite number"):
            served(x * number)
    with pytest.raises(ValueError, match=r"the input is torch.float64; this ONNX file takes torch.float32"):
        served(x.double())
    with pytest.raises(ValueError, match=r"shape \(6, 2, 2, 0, 12\); this ONNX file takes"):
        served(x[..., :0, :])
