"""Extracting ImageNet's official archives to train/WNID and val/WNID folders."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from scipy.io import loadmat
from torchvision.datasets.imagenet import ARCHIVE_META

from trevsnn.data.pictures.file import MOST_BYTES
from trevsnn.errors import RunError

#: File name and MD5 of the archives "train", "val" and "devkit".
ARCHIVES: dict[str, tuple[str, str]] = ARCHIVE_META
OFFICIAL_COUNTS = {"train": 1_281_167, "val": 50_000}
WNID = re.compile(r"n\d{8}")
MOST_META = 2**26  # bytes of a file of the development kit, which is compressed


def prepare(archives: Path, out: Path, console: Console, *, check_hashes: bool = True) -> dict[str, int]:
    """Extract the archives. After an interruption, call it again: it keeps what is complete.

    A class folder of train, and val as a whole, get their final names when they are complete.

    Args:
        archives: folder with ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz.
        out: folder to fill.
        console: for progress.
        check_hashes: compare the archives' MD5 and the number of pictures with the official ones.

    Returns:
        The number of pictures, by part.

    Raises:
        RunError: an archive is missing, damaged, not the official one, or holds anything but files with plain names; the
            pictures do not fit on the disk; or some are missing in the end.
    """
    paths = {part: archives / name for part, (name, _) in ARCHIVES.items()}
    for path in paths.values():
        if not path.is_file():
            raise RunError(f"{path} does not exist: --archives must name a folder with {_names()}.")
    _check_space(paths, out)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        if check_hashes:
            for part, path in paths.items():
                _check_hash(path, ARCHIVES[part][1], progress)
        try:
            wnids, labels = _read_devkit(paths["devkit"])
            _extract_train(paths["train"], out / "train", set(wnids.values()), progress)
            _extract_val(paths["val"], out, [wnids[label] for label in labels], progress)
        except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
            raise RunError(f"an archive in {archives} is damaged ({error}): fetch it again.") from error
    counts = {part: sum(1 for _ in (out / part).glob("*/*")) for part in ("train", "val")}
    expected = OFFICIAL_COUNTS if check_hashes else {"train": counts["train"], "val": len(labels)}
    for part, count in counts.items():
        if count != expected[part]:
            raise RunError(
                f"{out / part} holds {count} pictures, not {expected[part]}: remove the folder and prepare again."
            )
    return counts


def _names() -> str:
    return ", ".join(name for name, _ in ARCHIVES.values())


def _check_space(paths: dict[str, Path], out: Path) -> None:
    """Raise RunError if the pictures yet to be extracted do not fit: tar does not compress, so they need the archives' size."""
    there = sum(f.stat().st_size for f in out.rglob("*") if f.is_file()) if out.is_dir() else 0
    needed = sum(paths[part].stat().st_size for part in ("train", "val")) - there
    base = next(p for p in (out, *out.absolute().parents) if p.is_dir())
    free = shutil.disk_usage(base).free
    if needed > free:
        raise RunError(
            f"{out} needs {needed / 1e9:.1f} GB more, but its disk has {free / 1e9:.1f} GB free: make room, or name "
            "another folder with --out."
        )


def _check_hash(path: Path, md5: str, progress: Progress) -> None:
    task = progress.add_task(f"checking {path.name}", total=path.stat().st_size)
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            progress.advance(task, len(block))
    if digest.hexdigest() != md5:
        raise RunError(
            f"{path} is not the official archive (its MD5 is {digest.hexdigest()}, not {md5}): fetch it again, or use "
            "--no_hashes for archives of your own."
        )


def _read_devkit(path: Path) -> tuple[dict[int, str], list[int]]:
    """WNIDs by ImageNet's class numbers, and the class number of each validation picture."""
    with tarfile.open(path) as archive:
        members = {Path(member.name).name: member for member in archive if member.isfile()}
        meta = _content(archive, members["meta.mat"], MOST_META)
        truth = _content(archive, members["ILSVRC2012_validation_ground_truth.txt"], MOST_META)
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        leaves = [row for row in np.atleast_1d(synsets) if int(row["num_children"]) == 0]
        wnids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in leaves}
    except MemoryError:
        raise
    except Exception as error:  # SciPy's are of many classes
        raise RunError(f"{path} has a meta.mat that cannot be read ({error}): fetch it again.") from error
    for wnid in wnids.values():
        if not WNID.fullmatch(wnid):
            raise RunError(f"{path} names a class {wnid!r}, which is no WNID: fetch it again.")
    return wnids, [int(line) for line in truth.split()]


def _extract_train(path: Path, out: Path, wnids: set[str], progress: Progress) -> None:
    """One inner archive for each class, into a folder that is renamed when it is complete."""
    task = progress.add_task(f"extracting {path.name}", total=path.stat().st_size)
    out.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "r:") as outer:
        for member in outer:
            wnid = member.name.removesuffix(".tar")
            if not member.isfile() or member.issparse() or wnid not in wnids:
                raise RunError(
                    f"{path} holds {member.name!r}, which is no class of the development kit: fetch it again."
                )
            if not (out / wnid).is_dir():
                beside = out / f".{wnid}.part"
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
                with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                    for picture, content in _pictures(inner, f"{path}, {member.name}"):
                        (beside / picture).write_bytes(content)
                beside.rename(out / wnid)
            progress.update(task, completed=member.offset_data + member.size)
    missing = wnids - {p.name for p in out.iterdir()}
    if missing:
        raise RunError(
            f"{path} has no archive for {len(missing)} of the classes, {min(missing)} first: fetch it again."
        )


def _extract_val(path: Path, out: Path, wnids: list[str], progress: Progress) -> None:
    """The picture of number n goes to the class folder that line n of the ground truth names."""
    if (out / "val").is_dir():
        return
    task = progress.add_task(f"extracting {path.name}", total=path.stat().st_size)
    beside = out / ".val.part"
    for wnid in set(wnids):
        (beside / wnid).mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "r:") as archive:
        for name, content in _pictures(archive, str(path)):
            number = re.search(r"_(\d+)\.JPEG$", name)
            if number is None or not 1 <= int(number[1]) <= len(wnids):
                raise RunError(f"{path} holds {name!r}, for which there is no ground truth: fetch it again.")
            target = beside / wnids[int(number[1]) - 1] / name
            if not target.is_file() or target.stat().st_size != len(content):
                target.write_bytes(content)
            progress.advance(task, len(content))
    beside.rename(out / "val")


def _pictures(archive: tarfile.TarFile, where: str) -> Iterator[tuple[str, bytes]]:
    """The names and contents of an archive's files. Raises RunError for anything but files with plain names."""
    for member in archive:
        plain = os.path.basename(member.name) == member.name and not member.name.startswith(".")  # noqa: PTH119
        if not member.isfile() or member.issparse() or not plain:
            raise RunError(
                f"{where} holds {member.name!r}, which is no file with a plain name: it is not to be trusted."
            )
        yield member.name, _content(archive, member, MOST_BYTES)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    if member.size > most or member.issparse():
        raise ValueError(f"{member.name} has {member.size:,} bytes, more than the {most:,} that are read")
    file = archive.extractfile(member)
    content = b"" if file is None else file.read()
    if len(content) != member.size:
        raise EOFError(f"{member.name} is cut off")
    return content
