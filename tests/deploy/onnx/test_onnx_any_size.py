"""model.onnx takes items of any height and width, exactly."""

import onnx
import onnxruntime
import pytest
import torch
from torch.nn.functional import interpolate

from helpers import trained_like
from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx.float32 import export_float32
from trevsnn.deploy.onnx.graph import Graph, Map
from trevsnn.deploy.onnx.model import OnnxModel, check_input
from trevsnn.deploy.upsampling import nearest

SIZES = [(1, 1), (2, 3), (9, 10), (12, 12), (21, 9), (25, 37), (41, 42), (64, 96)]


def test_pixels_are_those_of_pytorch_at_every_size():
    """Of sides that are halved and rounded up one to five times. Integers would give others, as would a Resize of ONNX."""
    integers_differ = 0
    for after in range(1, 400):
        before = after
        for _ in range(5):
            before = (before + 1) // 2
            places = torch.arange(before, dtype=torch.float32).view(1, 1, before)
            expected = interpolate(places, size=after, mode="nearest").flatten().long()
            assert torch.equal(nearest(before, after), expected)
            integers_differ += not torch.equal(torch.arange(after) * before // after, expected)
    assert integers_differ > 0


@pytest.fixture(scope="module")
def upsampled():
    """The graph that upsamples one map to the size of another, in ONNX Runtime."""
    graph = Graph()
    real, info = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    made = graph.upsampled(Map(graph, "above", 2), Map(graph, "below", 1))
    assert made.size == 1
    inputs = [info(name, real, ["B", "C", f"H {name}", f"W {name}"]) for name in ("above", "below")]
    output = info(made.name, real, ["B", "C", "H", "W"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "g", inputs, [output], graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda above, below: session.run(None, {"above": above.numpy(), "below": below.numpy()})[0]


def test_the_graph_takes_the_pixels_that_pytorch_takes(upsampled):
    """Of sides that are halved and rounded up one to five times, where Resize of ONNX would take others at 21 from 6; of
    equal sides every pixel itself."""
    for after in range(1, 400):
        for times in range(6):
            before = -(-after // 2**times)
            above = torch.arange(2.0 * before).view(1, 1, 2, before)
            below = torch.empty(1, 1, 3, after)
            expected = interpolate(above, size=(3, after), mode="nearest")
            assert (upsampled(above, below) == expected.numpy()).all(), (before, after)
    for above_size, below_size in (((6, 3), (21, 9)), ((1, 5), (21, 9)), ((3, 2), (21, 9)), ((7, 4), (7, 4))):
        above, below = torch.randn(2, 3, *above_size), torch.empty(2, 3, *below_size)
        assert (upsampled(above, below) == interpolate(above, size=below_size, mode="nearest").numpy()).all()


@torch.no_grad()
def test_one_file_takes_items_of_any_size(tmp_path):
    """With links over three levels, whose maps are upsampled by factors that are no integers."""
    folded = fold(trained_like(channels=(6, 8, 8), timesteps=2, links="all").float())
    export_float32(folded, tmp_path / "model.onnx", properties={"size": "[1, 2]"})
    served = OnnxModel(tmp_path / "model.onnx")
    assert served.shape == [3, "height", "width"]
    assert served.session.get_modelmeta().custom_metadata_map == {"size": "[1, 2]"}
    close = total = 0
    for size in SIZES:
        for batch in (1, 5):
            x = torch.randn(batch, 3, *size)
            close += int(((served(x) - folded(x)).abs() < 1e-5).all(1).sum())
            total += batch
    assert close >= total - 1  # of one a potential may be at the threshold
    with pytest.raises(ValueError, match=r"this ONNX file takes \('B', 3, 'height', 'width'\)"):
        served(torch.randn(2, 4, 9, 9))
    with pytest.raises(ValueError, match="this ONNX file takes"):
        served(torch.randn(2, 3, 9))


@torch.no_grad()
def test_frames_are_of_any_size_too(tmp_path):
    folded = fold(trained_like(channels=(6, 8), input="event", encoder_stride=2).float())
    export_float32(folded, tmp_path / "model.onnx")
    served = OnnxModel(tmp_path / "model.onnx")
    for size in ((12, 12), (1, 20), (17, 9)):
        x = torch.randn(4, 2, 2, *size)
        torch.testing.assert_close(served(x), folded(x), rtol=1e-5, atol=1e-5)


def test_only_what_is_fixed_is_checked():
    check_input(torch.zeros(2, 3, 5, 7), [3, "height", "width"])
    check_input(torch.zeros(2, 3, 5, 7), [3, 5, "width"])
    for shape in ([3, 4, "width"], [2, "height", "width"], [3, 5], [3, 5, 7, 1]):
        with pytest.raises(ValueError, match="this ONNX file takes"):
            check_input(torch.zeros(2, 3, 5, 7), shape)
