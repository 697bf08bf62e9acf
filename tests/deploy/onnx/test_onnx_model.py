"""The folded network in ONNX Runtime."""

from pathlib import Path

import pytest
import torch

import trevsnn
from helpers import example, trained_like
from trevsnn.deploy.folded import fold
from trevsnn.deploy.onnx.model import OnnxModel, export_onnx


@pytest.mark.parametrize("options", [{}, {"readout": "mean"}, {"readout": "mean", "slope": 0.3}])
def test_onnx_takes_a_batch_of_any_size_and_an_event_model(tmp_path, options):
    model = trained_like(input="event", **options).float()
    folded = fold(model)
    x = example(model.config).float()
    export_onnx(folded, x, tmp_path / "model.onnx")
    served = OnnxModel(tmp_path / "model.onnx")
    for batch in (x, x[:1], torch.cat([x, x])):
        torch.testing.assert_close(served(batch), folded(batch), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"shape \(6, 2, 2, 12, 11\); this ONNX file takes \('B', 2, 2, 12, 12\)"):
        served(x[..., 1:])
    with pytest.raises(ValueError, match="the input holds NaN"):
        served(x * torch.nan)


@pytest.mark.parametrize("size", [(12, 12), (9, 10)])  # from (3, 3) to (9, 10) no pixel is repeated four times
def test_onnx_has_all_links_and_no_alphas(tmp_path, size):
    model = trained_like(channels=(6, 8, 8, 10), timesteps=3, links="all", alphas="one").float()
    folded = fold(model)
    x = torch.randn(16, 3, *size)
    export_onnx(folded, x, tmp_path / "model.onnx")
    close = ((OnnxModel(tmp_path / "model.onnx")(x) - folded(x)).abs() < 1e-5).all(1)
    assert close.sum() >= 15  # of one a potential may be at the threshold


def test_an_exported_file_does_not_say_where_its_maker_s_files_lie(tmp_path):
    """PyTorch's exporter writes a stack trace into every node."""
    model = trained_like().float()
    export_onnx(fold(model), example(model.config).float(), tmp_path / "model.onnx")
    content = (tmp_path / "model.onnx").read_bytes()
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(trevsnn.__file__).parent).encode() not in content
    assert b"folded.py" not in content
