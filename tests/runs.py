"""Small runs, and what may have happened to them since."""

import os
import shutil
from pathlib import Path

from trevsnn.cli.main import main


def begin(data: Path, run: Path, *options: str) -> Path:
    arguments = [
        "train", "--model.channels", "[2,4]", "--model.timesteps", "1", "--model.num_classes", "2", "--model.in_chans", "3",
        "--data.name", "folder", "--data.root", str(data), "--data.image_size", "8", "--batch_size", "8", "--epochs", "2",
        "--optim.warmup_epochs", "0.4", "--accelerator", "cpu", "--run", str(run), *options,
    ]  # fmt: skip
    assert main(arguments) == 0
    return run


def unfinished(ended: Path, to: Path) -> Path:
    """A copy of the run, without its last epoch."""
    shutil.copytree(ended, to)
    (to / "summary.json").unlink()
    shutil.rmtree(max((to / "checkpoints").glob("step-*")))
    return to


def change_by_hand(run: Path, old: str, new: str) -> None:
    file = run / "config.yaml"
    assert file.read_text().count(old) >= 1
    file.write_text(file.read_text().replace(old, new, 1))


def put_in_place_of(path: Path, kind: str, outside: Path) -> None:
    """Replace a file by a link to its content outside, by a pipe, by itself with 500,000 letters more, or by a terabyte of nothing."""
    content = path.read_bytes()
    path.unlink()
    if kind == "link":
        outside.write_bytes(content)
        path.symlink_to(outside)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "large":
        path.write_bytes(content + b"#" * 500_000)
    else:
        with path.open("wb") as file:
            file.truncate(2**40)
