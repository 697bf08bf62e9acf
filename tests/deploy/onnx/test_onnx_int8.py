"""The network in 8-bit arithmetic, against ONNX's reference implementation and against the network itself."""

from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from helpers import example, trained_like
from trevsnn.data.loading import calibration_items
from trevsnn.data.sets import load
from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx.graph import Graph, Map
from trevsnn.deploy.onnx.int8 import export_integer, seen_ranges
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.run.load import load_run

VARIANTS = [
    {}, {"input": "event"}, {"input": "event", "readout": "mean"}, {"input": "event", "readout": "mean", "slope": 0.5}, {"encoding": "grouped"}, {"timesteps": 1},
    {"links": "all", "alphas": "one", "channels": (6, 8, 8, 10)},
]  # fmt: skip


def made(folder: Path, x: torch.Tensor, **options):
    """A folded network and its 8-bit file, of whose maps all can be read."""
    folded = fold(trained_like(**options).float())
    path = folder / "model-int8.onnx"
    export_integer(folded, x, path)
    model = onnx.load(path)
    kinds = {"DequantizeLinear": onnx.TensorProto.FLOAT, "Add": onnx.TensorProto.FLOAT}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "QLinearConv", "Clip", *kinds):
            kind = kinds.get(node.op_type, onnx.TensorProto.UINT8)
            model.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], kind, None))
    onnx.save(model, folder / "open.onnx")
    return folded, path, model


@pytest.mark.parametrize("options", VARIANTS)
@torch.no_grad()
def test_every_map_is_what_onnx_s_reference_gives(tmp_path, options):
    x = example(trained_like(**options).config, batch=3).float()
    _, path, model = made(tmp_path, x, **options)
    outputs = [output.name for output in model.graph.output]
    session = OnnxModel(tmp_path / "open.onnx").session
    ours = dict(zip(outputs, session.run(outputs, {"input": x.numpy()}), strict=True))
    theirs = dict(zip(outputs, ReferenceEvaluator(model).run(outputs, {"input": x.numpy()}), strict=True))
    for name in outputs:
        # A sum within rounding of the middle between two codes may go either way, and the maps after it with it.
        assert np.mean(ours[name] != theirs[name]) < 0.01 or np.abs(ours[name] - theirs[name]).max() < 1e-5
    served = OnnxModel(path)
    assert torch.equal(served(x), torch.from_numpy(ours["logits"]))
    torch.testing.assert_close(served(x[:1]), served(x)[:1])


@torch.no_grad()
def test_spikes_are_zero_and_one_and_exact_and_nothing_overflows(tmp_path):
    x = example(trained_like().config, batch=8).float()
    _, _, model = made(tmp_path, x)
    outputs = [output.name for output in model.graph.output]
    found = OnnxModel(tmp_path / "open.onnx").session.run(outputs, {"input": x.numpy()})
    maps = dict(zip(outputs, found, strict=True))
    makers = {node.output[0]: node for node in model.graph.node}
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    thresholded = 0
    for node in model.graph.node:
        if node.op_type == "QLinearConv":
            weight, group = constants[node.input[3]].astype(int), onnx.helper.get_node_attr_value(node, "group")
            largest = int(maps[node.input[0]].max()) if node.input[0] in maps else 255
            assert group > 1 or 2 * largest * abs(weight).max() < 2**15
        if node.op_type != "Clip":
            continue
        spikes = maps[node.output[0]]
        assert set(np.unique(spikes)) <= {0, 1}
        source = makers[node.input[0]]
        if source.op_type == "QuantizeLinear" and source.input[0] in maps:
            assert np.array_equal(spikes, maps[source.input[0]] >= 0.5)
            thresholded += 1
        if source.op_type == "QLinearConv":  # PW1: its input is DW1's output
            assert maps[source.input[0]].max() <= 127
            assert maps[source.input[0]].max() >= 100  # and fills the range
    assert thresholded > 10


@settings(max_examples=10, deadline=None)
@given(value=st.floats(-3, 3, width=32), divisor=st.sampled_from([1, 2, 4]))
def test_the_threshold_is_the_network_s(value, divisor):
    half = np.float32(0.5 * divisor)
    values = np.array([value, half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(9))], np.float32)
    step = np.nextafter(np.float32(divisor), np.float32(0))
    node = onnx.helper.make_node("QuantizeLinear", ["v", "step", "zero"], ["y"])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [info("v", onnx.TensorProto.FLOAT, [4])], [info("y", onnx.TensorProto.UINT8, [4])],
        [onnx.numpy_helper.from_array(step, "step"), onnx.numpy_helper.from_array(np.uint8(0), "zero")],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    import onnxruntime

    (codes,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"v": values})
    assert np.array_equal(codes >= 1, torch.from_numpy(values / np.float32(divisor)).ge(0.5).numpy())


@torch.no_grad()
@pytest.mark.parametrize(
    ("before", "after", "operators"),
    [
        ((3, 4), (12, 16), ["Resize"]),
        ((3, 4), (11, 15), ["Resize", "Slice"]),
        ((1, 1), (1, 2), ["Resize", "Slice"]),
        ((3, 3), (9, 10), ["Gather", "Gather"]),
        ((2, 3), (5, 12), ["Gather", "Gather"]),
    ],
)
def test_codes_are_upsampled_as_the_network_upsamples(before, after, operators):
    graph = Graph()
    made = graph.upsampled_codes(Map(graph, "codes", before), after)
    assert [node.op_type for node in graph.nodes] == operators
    assert made.size == after
    info = onnx.helper.make_tensor_value_info
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes, "g", [info("codes", onnx.TensorProto.UINT8, [2, 3, *before])],
            [info(made.name, onnx.TensorProto.UINT8, [2, 3, *after])], graph.constants,
        ),
        opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10,
    )  # fmt: skip
    codes = torch.randint(256, (2, 3, *before), dtype=torch.uint8)
    import onnxruntime

    (found,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"codes": codes.numpy()})
    assert np.array_equal(found, torch.nn.functional.interpolate(codes, size=after, mode="nearest").numpy())


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"links": "all", "channels": (6, 8, 8, 10)}])
def test_odd_sizes_double_like_the_network(tmp_path, options):
    differences = []
    for seed in range(7):
        model = trained_like(seed=seed, encoder_stride=1, **options).float()
        x = torch.randn(4, model.config.in_chans, 11, 13)
        folded = fold(model)
        export_integer(folded, x, tmp_path / "model.onnx")
        differences.append(float((OnnxModel(tmp_path / "model.onnx")(x) - folded(x)).std() / folded(x).std()))
    assert median(differences) < 0.45  # in so small a network one spike more can change all that follows


@torch.no_grad()
def test_ranges_are_the_largest_outputs_over_all_calls():
    folded = fold(trained_like().float())
    x = example(folded.config, batch=4).float()
    seen: dict[str, list[torch.Tensor]] = {}
    name = "levels.1.shared.pw2"
    module = folded.get_submodule(name)
    handle = module.register_forward_hook(lambda m, i, output: seen.setdefault(name, []).append(output.abs()))
    ranges = seen_ranges(folded, x)
    handle.remove()
    assert len(seen[name]) == folded.config.timesteps
    assert torch.equal(ranges[module], torch.stack(seen[name]).amax((0, 1, 3, 4)))


@torch.no_grad()
def test_a_trained_network_keeps_its_accuracy(tmp_path):
    model, config, _, _ = load_run(Path("digits"), "last")
    folded = fold(model.float())
    export_integer(folded, calibration_items(config.data, 2, 64), tmp_path / "model.onnx")
    part = load(config.data, "val", 2)
    from trevsnn.data.loading import TensorDataset

    items = TensorDataset(part, config.data, 0, timesteps=config.model.timesteps, training=False)
    x, labels = zip(*((items[0, i][0], items[0, i][1]) for i in range(len(items))), strict=True)
    given = OnnxModel(tmp_path / "model.onnx")(torch.stack(x)).argmax(1)
    assert (given == torch.tensor(labels)).float().mean() > 0.965
    assert (given == folded(torch.stack(x)).argmax(1)).float().mean() > 0.965
