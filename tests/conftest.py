"""Small networks with weights that make every part of them matter."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # here and in processes the tests start: networks this small are slower with more
os.environ["PYTHONPATH"] = os.pathsep.join(  # pytest's pythonpath is not handed on to them
    [str(Path(__file__).parents[1] / "networks" / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
)
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # with which cuBLAS is deterministic; it is read when CUDA starts

import hypothesis
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

if not torch.cuda.is_available():  # kernels run in an interpreter then; it is read when Triton is imported
    os.environ["TRITON_INTERPRET"] = "1"

from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.zoo.presets import pretrained_folder

hypothesis.settings.register_profile("trevsnn", deadline=None)  # a machine's other work is no fault of ours
hypothesis.settings.load_profile("trevsnn")

# In TF32 products have 11 bits, in convolutions by default: no bound that is justified for float32 would hold on CUDA.
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False

DEVICES = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}

# Its processes begin with everything imported, which takes longer than most tests.
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(["trevsnn.train.train", "conftest", "warm"])


def pytest_collection_finish() -> None:
    """From here on garbage is looked for less often, and not among what was imported: that took a tenth of the time of all tests."""
    gc.freeze()
    gc.set_threshold(20_000, 10, 50)


def lively(model: nn.Module, alpha: float = 0.5, spread: float = 0.05) -> nn.Module:
    """Weights under which spikes of all levels are neither silent nor saturated, and alphas near ``alpha``."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "alphas" in name:
                parameter.normal_(alpha, spread)
            elif "gain" in name:
                parameter.uniform_(0.8, 1.5)
            elif parameter.dim() > 1 and "gamma" not in name:
                parameter.normal_(0, 0.5)
            else:
                parameter.uniform_(-0.3, 0.6)
    return model


@pytest.fixture(scope="session", params=[name for name, there in DEVICES.items() if there])
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device of this machine: the CPU, and CUDA or MPS where there is one."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def device64(device: torch.device) -> torch.device:
    """Each that knows float64."""
    if device.type == "mps":
        pytest.skip("MPS has no float64")
    return device


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is float64 by its parameters, or by the fixture, on MPS."""
    given = getattr(getattr(item, "callspec", None), "params", {})
    is_float64 = "float64" in getattr(item, "fixturenames", ()) or any(v is torch.float64 for v in given.values())
    if given.get("device") == "mps" and is_float64:
        pytest.skip("MPS has no float64")


@pytest.fixture
def float64() -> Iterator[None]:
    """float64 as the default dtype."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def kernel_device() -> torch.device:
    """Where Triton kernels run here: on a CUDA device, or in the interpreter."""
    pytest.importorskip("triton")  # which PyTorch brings on Linux
    return torch.device("cuda" if DEVICES["cuda"] else "cpu")


@pytest.fixture(params=[torch.float16, torch.bfloat16] if DEVICES["cuda"] else [torch.float16])
def low(request: pytest.FixtureRequest) -> torch.dtype:
    """The dtypes of 16 bits that kernels are tried in; the interpreter has no products in bfloat16."""
    return request.param


@pytest.fixture(params=[torch.float16, torch.bfloat16])
def low_without_products(request: pytest.FixtureRequest) -> torch.dtype:
    """Likewise for kernels without matrix products. The interpreter cuts numbers off where they are rounded to bfloat16, so
    that they are within a unit of the last place and not half of one."""
    return request.param


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Operations that give the same bits every time, as training asks for; one that cannot warns, which fails."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(before, warn_only=True)


@pytest.fixture
def small_model(device: torch.device) -> Callable[..., TRevSNN]:
    """Build a lively small model in training mode on the test's device; overrides are config fields."""

    def build(dtype: torch.dtype = torch.float32, seed: int = 0, alpha: float = 0.5, **overrides: Any) -> TRevSNN:
        if dtype is torch.float64 and device.type == "mps":
            pytest.skip("MPS has no float64")
        torch.manual_seed(seed)
        options: dict[str, Any] = {"channels": (4, 8, 8, 12), "num_classes": 5, "encoder_stride": 1, **overrides}
        model = TRevSNN(TRevSNNConfig(**options)).to(dtype)
        lively(model, alpha)  # on the CPU, so that every device has the same weights
        return model.to(device).train()

    return build


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run on digits, not to be changed."""
    from helpers import train  # which imports from here

    run = tmp_path_factory.mktemp("finished") / "run"
    train("--run", str(run), "--slope_epochs", "2")
    return run


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few pictures of two classes, in parts train and val, not to be changed."""
    from helpers import folder_of_pictures

    root = tmp_path_factory.mktemp("data")
    folder_of_pictures(root, ("train", "val"))
    return root


@pytest.fixture(scope="session")
def ended(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs on them, not to be changed."""
    from runs import begin

    return begin(small_set, tmp_path_factory.mktemp("ended") / "run")


@pytest.fixture
def sent(finished: Path, tmp_path: Path) -> Path:
    """A run that somebody has sent."""
    return shutil.copytree(finished, tmp_path / "sent")


@pytest.fixture
def sent_export(tmp_path: Path) -> Path:
    """An export that somebody has sent."""
    return shutil.copytree(pretrained_folder("digits"), tmp_path / "exported")


@pytest.fixture
def folder_and_shards(tmp_path: Path) -> tuple[Path, Path]:
    """The same pictures in a folder and in shards of seven."""
    from helpers import folder_of_pictures, shards_of_folder

    folder_of_pictures(tmp_path / "folder", ("train", "val"))
    shards_of_folder(tmp_path / "folder", tmp_path / "shards")
    return tmp_path / "folder", tmp_path / "shards"


@pytest.fixture(scope="session")
def trained(device: torch.device, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run trained on the test's device, not to be changed."""
    from helpers import train

    if device.type == "cpu":
        return request.getfixturevalue("finished")
    run = tmp_path_factory.mktemp("trained") / "run"
    train("--run", str(run), "--slope_epochs", "2", accelerator=device.type)
    return run


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """Every parameter's gradient of ``loss``, by name."""
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def worst(ours: dict[str, Tensor], reference: dict[str, Tensor], only: str = "") -> float:
    """Largest relative difference of two sets of gradients, in the norm of each parameter."""
    assert ours.keys() == reference.keys()
    return max(float((ours[n] - g).norm() / g.norm().clamp_min(1e-30)) for n, g in reference.items() if only in n)


def shared_data(*names: str) -> Path:
    """A file or folder of the real data that may lie beside the checkout; the test skips where it does not."""
    path = Path(__file__).parents[2].joinpath("shared", "data", *names)
    if not path.exists():
        pytest.skip(f"{path.name} of the real data is not beside the checkout")
    return path


@pytest.fixture(scope="session")
def wide_run(tmp_path_factory) -> Path:
    """A run on a folder of colour pictures, at 9 x 14 pixels, wider than high, of which evaluation takes the middle."""
    from helpers import folder_of_pictures  # which imports this module

    folder = tmp_path_factory.mktemp("wide")
    folder_of_pictures(folder / "data", ("train", "val"), n=20)
    for part in ("train", "val"):  # dogs are darker
        for file in (folder / "data" / part / "dog").iterdir():
            Image.fromarray(np.asarray(Image.open(file)) // 2).save(file)
    options = [
        "--model.channels", "[4,8]", "--model.timesteps", "2", "--model.num_classes", "2", "--model.in_chans", "3",
        "--data.name", "folder", "--data.root", str(folder / "data"), "--data.image_size", "9", "14", "--data.crop_share",
        "0.9", "--batch_size", "8", "--epochs", "2", "--optim.warmup_epochs", "0", "--accelerator", "cpu",
    ]  # fmt: skip
    assert main(["train", *options, "--run", str(folder / "run")]) == 0
    return folder / "run"


@pytest.fixture(scope="session")
def wide_export(wide_run) -> Path:
    """That run, exported for ONNX Runtime, in float32 and in 8-bit arithmetic."""
    out = wide_run.with_name("exported")
    assert main(["export", str(wide_run), "--out", str(out), "--formats", "onnx", "onnx-int8"]) == 0
    return out
