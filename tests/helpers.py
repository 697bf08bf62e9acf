"""Small networks, runs and data sets that several tests share."""

import csv
import gzip
import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import trevsnn
from conftest import gradients, lively, worst
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.pictures import in_memory
from trevsnn.network.blocks import LevelStep, Link, PointwiseDepthwise


def trained_like(slope: float = 1.0, seed: int = 1, **options) -> TRevSNN:
    """A network with lively weights and batch statistics of its own."""
    config = TRevSNNConfig(**{"channels": (6, 8, 10), "timesteps": 2, "num_classes": 5, "encoder_stride": 1, **options})
    model = TRevSNN(config)
    torch.manual_seed(seed)  # all that follows does not depend on what a network begins with
    model = lively(model).double()
    model.set_slope(slope)
    for _ in range(3):
        model(example(config))
    return model.eval()


def example(config: TRevSNNConfig, batch: int = 6, size: int = 12) -> torch.Tensor:
    frames = (config.timesteps,) if config.input == "event" else ()
    return torch.randn(batch, *frames, config.in_chans, size, size, dtype=torch.float64)


SMALL = [
    "--model.channels", "[4,8]", "--epochs", "3", "--batch_size", "128", "--ema_decay", "0.9",
    "--optim.warmup_epochs", "1", "--accelerator", "cpu",
]  # fmt: skip

TINY_FLOAT16 = [
    "train", "--model.channels", "[2,4]", "--model.timesteps", "1", "--model.num_classes", "2", "--model.in_chans", "3",
    "--data.name", "folder", "--data.image_size", "8", "--batch_size", "4", "--optim.warmup_epochs", "0", "--accelerator",
    "cpu", "--precision", "16-mixed",
]  # fmt: skip


def train(*options: str, accelerator: str = "cpu") -> None:
    assert main(["train", *SMALL, "--accelerator", accelerator, *options]) == 0


def fails(capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, message: str) -> None:
    """``trevsnn data`` ends with this code and one sentence with this message."""
    capsys.readouterr()
    assert main(["data", *arguments]) == code
    out, error = capsys.readouterr()
    assert error.startswith("trevsnn: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert "Traceback" not in out + error


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    """All tensors of the last checkpoint: weights, averaged weights, optimizer."""
    last = max((run / "checkpoints").glob("step-*"))
    return {f"{file.name}/{name}": t for file in last.glob("*.safetensors") for name, t in load_file(file).items()}


def metrics(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))


def assert_same(one: Path, other: Path) -> None:
    a, b = final_weights(one), final_weights(other)
    assert a.keys() == b.keys()
    assert len(a) > 50
    for name, tensor in a.items():
        assert torch.equal(tensor, b[name]), name


FASHION = DataConfig(name="fashion-mnist", image_size=28, crop_padding=2, flip=True)


needs_debian = pytest.mark.skipif(
    not in_memory.DEBIAN_FASHION_MNIST.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(gzip.compress(header + array.astype(np.uint8).tobytes()))


def imitate_fashion_mnist(folder: Path, n: int = 6000) -> np.ndarray:
    folder.mkdir(parents=True, exist_ok=True)
    pictures = np.random.default_rng(0).integers(0, 256, (n, 28, 28))
    for part in in_memory.IDX_FILES.values():
        write_idx(folder / part[0], pictures)
        write_idx(folder / part[1], np.arange(n) % 10)
    return pictures


def picture(value: int = 0, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> Image.Image:
    dice = np.random.default_rng(value)
    return Image.fromarray(dice.integers(0, 256, (size[1], size[0], 3), np.uint8)).convert(mode)


def folder_of_pictures(
    root: Path, parts: tuple[str, ...], classes: tuple[str, ...] = ("cat", "dog"), n: int = 20
) -> None:
    for part in parts:
        for label, name in enumerate(classes):
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(n):
                picture(1000 * label + i).save(root / part / name / f"{i:03}.png")


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], mode: str = "w") -> None:
    """A tar file with these members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def shards_of_folder(folder: Path, root: Path, items: int = 7) -> None:
    """The pictures of every part of a folder in shards of so many, written by webdataset, in the folder's order."""
    from webdataset import ShardWriter  # not on every machine that these tests run on

    root.mkdir(parents=True, exist_ok=True)
    classes = sorted(path.name for path in (folder / "train").iterdir())
    for part in (path for path in folder.iterdir() if path.is_dir()):
        with ShardWriter(f"{root}/{part.name}-%06d.tar", maxcount=items, verbose=0) as shards:
            for label, name in enumerate(classes):
                for file in sorted((part / name).iterdir()):
                    sample = {file.suffix[1:]: file.read_bytes(), "cls": label}
                    shards.write({"__key__": f"{name}{file.stem}", **sample})
    (root / "classes.txt").write_text("".join(f"{name}\n" for name in classes))


def shard_config(root: Path, **options: object) -> DataConfig:
    """Of shards in a folder, whose cache is a folder in it."""
    return DataConfig(**{"name": "shards", "root": str(root), "cache": str(root / "cache"), "image_size": 8, **options})


def folder_config(root: Path, **options: object) -> DataConfig:
    return DataConfig(**{"name": "folder", "root": str(root), "image_size": 8, **options})


def loss_of(model, x, target):
    heads = model.forward_heads(x)
    return trevsnn.deep_supervision_loss(heads, target)


def assert_exact_is_autograd(model, x, target):
    """All gradients, in float64."""
    found = {}
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        found[mode] = gradients(model, loss_of(model, x, target))
    assert worst(found["exact"], found["autograd"]) < 1e-12


def step_and_inputs(dtype, *, kernel_size=3, projection=False, seed=0, device="cpu"):
    torch.manual_seed(seed)
    below = nn.Conv2d(3, 5, 3, stride=2, padding=1) if projection else Link(3, 5, kernel_size=3, stride=2)
    step = LevelStep(5, kernel_size, below, Link(7, 5, kernel_size=1, stride=1))
    shared = PointwiseDepthwise(5, kernel_size)
    for module in (step, shared):
        lively(module.to(dtype))
    nn.init.normal_(step.gamma)
    below, above = torch.randn(5, 3, 9, 12, dtype=dtype), torch.randn(5, 7, 3, 3, dtype=dtype)
    return step.to(device), shared.to(device), below.to(device), above.to(device)
