"""model.onnx takes items of any height and width, exactly."""

import pytest
import torch
from torch.nn.functional import interpolate

from helpers import trained_like
from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx.model import OnnxModel, check_input, export_onnx
from trevsnn.deploy.upsampling import fuse_any_size, nearest
from trevsnn.network.blocks import fuse

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


@pytest.mark.parametrize("above", [(6, 3), (1, 5), (3, 2)])
def test_maps_are_fused_as_in_the_network(above):
    below, maps = torch.randn(2, 3, 21, 9), torch.randn(2, 3, *above)
    assert torch.equal(fuse_any_size(below, maps), fuse(below, maps))


@torch.no_grad()
def test_one_file_takes_items_of_any_size(tmp_path):
    """With links over three levels, whose maps are upsampled by factors that are no integers."""
    folded = fold(trained_like(channels=(6, 8, 8), timesteps=2, links="all").float())
    export_onnx(folded, None, tmp_path / "model.onnx", properties={"size": "[1, 2]"})
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
    export_onnx(folded, None, tmp_path / "model.onnx")
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
