"""ImageNet's archives: extracted, resumed, checked."""

import gzip
import hashlib
import io
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from scipy.io import savemat

from helpers import picture
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.pictures import imagenet
from trevsnn.data.pictures.folders import folder_splits
from trevsnn.errors import RunError


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return out.getvalue()


def jpeg(value: int) -> bytes:
    out = io.BytesIO()
    picture(value).save(out, "JPEG")
    return out.getvalue()


WNIDS = ("n00000007", "n00000003")  # by ImageNet's numbers, which are in no order


def archives(folder: Path) -> dict[str, Path]:
    """ImageNet in small, in the form of the official archives: two classes of three, four validation pictures."""
    folder.mkdir()
    inner = {f"{w}.tar": tar({f"{w}_{i}.JPEG": jpeg(10 * n + i) for i in range(3)}) for n, w in enumerate(WNIDS)}
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(i + 1, wnid, 0) for i, wnid in enumerate(WNIDS)] + [(3, "n00000001", 2)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=fields)})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n1\n2\n",
    }
    val = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(100 + i) for i in range(1, 5)}
    contents = {"train": tar(inner), "val": tar(val), "devkit": tar(kit, "w:gz")}
    paths = {part: folder / name for part, (name, _) in imagenet.ARCHIVES.items()}
    for part, path in paths.items():
        path.write_bytes(contents[part])
    return paths


def tree(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_imagenet_is_prepared_and_resumed(tmp_path, capsys):
    archives(tmp_path / "archives")
    out = tmp_path / "out"
    call = ["data", "prepare", "imagenet", "--archives", str(tmp_path / "archives"), "--out", str(out), "--no_hashes"]
    assert main(call) == 0
    assert "6 train and 4 val pictures" in capsys.readouterr().out
    found = tree(out)
    assert len(found) == 10
    assert found["train/n00000003/n00000003_2.JPEG"] == jpeg(12)
    assert found["val/n00000003/ILSVRC2012_val_00000001.JPEG"] == jpeg(101)
    assert found["val/n00000007/ILSVRC2012_val_00000003.JPEG"] == jpeg(103)
    # As an interruption leaves it: one class half, val half, with a picture cut off.
    (out / "train" / "n00000003").rename(out / "train" / ".n00000003.part")
    (out / "train" / ".n00000003.part" / "n00000003_2.JPEG").unlink()
    (out / "val").rename(out / ".val.part")
    (out / ".val.part" / "n00000003" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"half")
    kept = (out / "train" / "n00000007").stat().st_mtime_ns
    assert main(call) == 0
    assert tree(out) == found
    assert (out / "train" / "n00000007").stat().st_mtime_ns == kept
    assert folder_splits(DataConfig(name="imagenet", root=str(out))) == ["train", "val"]


def test_imagenet_s_archives_are_checked(tmp_path, capsys, monkeypatch):
    paths = archives(tmp_path / "a")
    call = ["data", "prepare", "imagenet", "--archives", str(tmp_path / "a"), "--out", str(tmp_path / "out")]

    def refuses(message: str, *more: str) -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert main([*call, *more]) == 1
        error = capsys.readouterr().err
        assert re.search(message, error), error
        assert error.count("\n") == 1

    refuses(r"train.tar is not the official archive \(its MD5 is \w+, not 1d675b47")
    whole = paths["train"].read_bytes()
    paths["train"].write_bytes(whole[: len(whole) // 2])
    refuses("is damaged .*: fetch it again", "--no_hashes")
    for name in ("../evil.JPEG", "/evil.JPEG", "sub/evil.JPEG", ".hidden.JPEG"):
        paths["train"].write_bytes(tar({"n00000003.tar": tar({name: jpeg(0)})}))
        refuses(f"holds '{re.escape(name)}', which is no file with a plain name", "--no_hashes")
    paths["train"].write_bytes(tar({"../n00000003.tar": b""}))
    refuses("which is no class of the development kit", "--no_hashes")
    paths["train"].write_bytes(tar({"n00000003.tar": tar({"a.JPEG": jpeg(0)})}))
    refuses("has no archive for 1 of the classes, n00000007 first", "--no_hashes")
    assert not list(tmp_path.rglob("*evil*"))
    paths["train"].write_bytes(whole)
    paths["val"].write_bytes(tar({"ILSVRC2012_val_00000009.JPEG": jpeg(0)}))
    refuses("for which there is no ground truth", "--no_hashes")
    monkeypatch.setattr(imagenet.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    refuses(r"needs 0.0 GB more, but its disk has 0.0 GB free: make room", "--no_hashes")
    monkeypatch.undo()
    paths["val"].unlink()
    refuses("val.tar does not exist: --archives must name a folder with", "--no_hashes")


def test_archives_that_unpack_to_gigabytes_or_hold_no_table_are_refused(tmp_path, capsys, monkeypatch):
    """Also those that claim zeros without holding them, as sparse files do."""
    paths = archives(tmp_path / "a")
    call = [
        "data",
        "prepare",
        "imagenet",
        "--archives",
        str(tmp_path / "a"),
        "--out",
        str(tmp_path / "out"),
        "--no_hashes",
    ]
    whole, kit = paths["val"].read_bytes(), paths["devkit"].read_bytes()

    def refuses(message: str) -> None:
        assert main(call) == 1
        assert re.search(message, capsys.readouterr().err)

    size, name = 2**40, "ILSVRC2012_val_00000001.JPEG"
    sparse = tarfile.TarInfo(name)
    sparse.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": name, "GNU.sparse.realsize": str(size)
    }  # fmt: skip
    holes = f"1\n{size}\n0\n".encode().ljust(512, b"\0")
    sparse.size = len(holes)
    with tarfile.open(paths["val"], "w") as archive:
        archive.addfile(sparse, io.BytesIO(holes))
    refuses("which is no file with a plain name: it is not to be trusted")
    paths["val"].write_bytes(gzip.compress(whole))
    refuses("is damaged .*: fetch it again")
    paths["val"].write_bytes(whole)
    monkeypatch.setattr(imagenet, "MOST_META", 100)
    refuses(r"meta.mat has \d+ bytes, more than the 100 that are read\): fetch it again")
    monkeypatch.undo()
    with tarfile.open(fileobj=io.BytesIO(kit)) as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}
    meta = "ILSVRC2012_devkit_t12/data/meta.mat"
    other = io.BytesIO()
    savemat(other, {"synsets": np.arange(3)})
    for content in (b"garbage", files[meta][:200], other.getvalue()):
        paths["devkit"].write_bytes(tar({**files, meta: content}, "w:gz"))
        refuses("has a meta.mat that cannot be read .*: fetch it again")


def test_hashes_that_fit_are_taken(tmp_path, monkeypatch):
    paths = archives(tmp_path / "a")
    known = {part: (path.name, hashlib.md5(path.read_bytes()).hexdigest()) for part, path in paths.items()}
    monkeypatch.setattr(imagenet, "ARCHIVES", known)
    monkeypatch.setattr(imagenet, "OFFICIAL_COUNTS", {"train": 6, "val": 4})
    console = Console(quiet=True)
    assert imagenet.prepare(tmp_path / "a", tmp_path / "out", console) == {"train": 6, "val": 4}
    monkeypatch.setattr(imagenet, "OFFICIAL_COUNTS", {"train": 7, "val": 4})
    with pytest.raises(RunError, match="train holds 6 pictures, not 7: remove the folder and prepare again"):
        imagenet.prepare(tmp_path / "a", tmp_path / "out", console)
