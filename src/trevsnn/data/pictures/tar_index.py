"""What lies where in a shard, a tar file of the WebDataset layout: found out once, and kept in the cache."""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import os
import re
import tarfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from trevsnn.data.pictures.file import PICTURE_ENDINGS
from trevsnn.errors import RunError, UsageError
from trevsnn.files import read_file, renamed_when_complete
from trevsnn.terminal import Terminal

INDEX_VERSION = 2  # raise it when the same shard comes to give another index
PICTURES = {extension[1:] for extension in PICTURE_ENDINGS}
MOST_INDEX = 2**30  # bytes of a file of the cache
MOST_LABEL = 2**24  # bytes of a member with a label
MOST_HEADER = 2**20  # bytes of a member's header, which may hold a long name
_DIGEST = hashlib.sha256().digest_size
_METADATA = re.compile(r"__[^/]*__($|/)")  # names that webdataset leaves out


@dataclass(frozen=True)
class Shard:
    """A shard's file, and its pictures in their order.

    Attributes:
        path: of the file.
        stamp: its size in bytes and its time of change in nanoseconds.
        pictures_N: their ``name`` (UTF-8), ``offset`` and ``size`` in bytes, and ``label``.
    """

    path: Path
    stamp: tuple[int, int]
    pictures_N: NDArray[np.void]


def read_shards(paths: Sequence[Path], cache: Path, workers: int = 0) -> list[Shard]:
    """What is in several shards, from the cache's folder, or else from the shards, which the cache has afterwards.

    Args:
        paths: of the shards.
        cache: the folder.
        workers: processes that read them; 0 for this one.

    Raises:
        RunError: as :func:`index_shard`; or a shard is missing, or the cache cannot be written.
        UsageError: ``webdataset`` is not installed.
    """
    read = partial(_read_shard, cache=cache)
    with ProcessPoolExecutor(workers) if workers else nullcontext() as pool:
        shards = pool.map(read, paths) if pool else map(read, paths)
        # On stderr, as stdout may be JSON.
        return list(track(shards, "reading shards", len(paths), console=Terminal(stderr=True), transient=True))


def stamp_of(about: os.stat_result) -> tuple[int, int]:
    """Size and time of change, by which a changed file is known."""
    return about.st_size, about.st_mtime_ns


def _read_shard(path: Path, cache: Path) -> Shard:
    stamp = _stamp(path)
    key = json.dumps([INDEX_VERSION, str(path.resolve()), *stamp]).encode()
    file = cache / f"{hashlib.sha256(key).hexdigest()[:32]}.index"
    pictures_N = _kept(file, key, stamp[0])
    if pictures_N is None:
        pictures_N = index_shard(path)
        if _stamp(path) != stamp:
            raise changed(path)
        _write(file, key, pictures_N)
    return Shard(path, stamp, pictures_N)


def _kept(file: Path, key: bytes, size: int) -> NDArray[np.void] | None:
    """The index in a file of the cache; None where there is none, or not the whole one of just this shard.

    Args:
        file: of the cache.
        key: says which shard, and in which state.
        size: of the shard, bytes.
    """
    try:
        content = read_file(file, MOST_INDEX, links=True)
        written = content[_DIGEST:]
        if content[:_DIGEST] != _digest(key, written):
            return None
        pictures_N = np.load(io.BytesIO(written), allow_pickle=False)
        first_N, ends_N = pictures_N["offset"], pictures_N["offset"] + pictures_N["size"]
        inside = bool((first_N >= 0).all() and (ends_N >= first_N).all() and (ends_N <= size).all())
    except Exception:  # in whatever way it is damaged
        return None
    return pictures_N if inside else None


def _digest(key: bytes, written: bytes) -> bytes:
    return hashlib.sha256(key + written).digest()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        return stamp_of(path.stat())
    except OSError as error:
        raise missing(path) from error


def missing(path: Path) -> RunError:
    """The error to raise where a shard that was there is there no more."""
    return RunError(f"{path} does not exist: has the data folder moved?")


def changed(path: Path) -> RunError:
    """The error to raise where a shard is no longer the one that was read at first."""
    return RunError(f"{path} has changed since the run began: put the old one back, or begin a new run.")


def _write(file: Path, key: bytes, pictures_N: NDArray[np.void]) -> None:
    """Write a file of the cache beside it and rename: another process may do the same at the same time.

    It begins with the SHA-256 of the key and all that follows, so that neither a damaged file is believed nor another one.
    """
    content = io.BytesIO()
    np.save(content, pictures_N, allow_pickle=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with renamed_when_complete(file) as fresh:
            fresh.write(_digest(key, content.getvalue()) + content.getvalue())
    except OSError as error:
        raise RunError(f"the cache {file.parent} cannot be written ({error.strerror}): set data.cache.") from error


def index_shard(path: Path) -> NDArray[np.void]:
    """The pictures of a shard, see :class:`Shard`, from the headers of its members and the members with labels.

    What belongs together is webdataset's to say: consecutive members with the same name up to its first dot.

    Raises:
        RunError: it is compressed, damaged or cut off; or a sample has no picture or several, no label, one that is no
            class index, or the key of another.
        UsageError: ``webdataset`` is not installed.
    """
    group_by_keys = _webdataset("webdataset.tariterators").group_by_keys
    rows: list[tuple[bytes, int, int, int]] = []
    keys: set[str] = set()
    try:
        for sample in group_by_keys(_members(path)):
            key = sample["__key__"]
            if key in keys:
                raise RunError(
                    f"{path}: the members of {key} are in two places, or there are two samples of that name: write the "
                    "members of a sample one after the other, under a key of its own."
                )
            keys.add(key)
            picture = _picture(path, sample)
            name = picture.name.encode("utf-8", "surrogateescape")
            rows.append((name, picture.offset, picture.size, _label(path, sample)))
    except ValueError as error:  # of group_by_keys, whose message begins with the member's name
        raise RunError(f"{path} holds {str(error.args[0]).partition(':')[0]} twice: write each member once.") from error
    longest = max((len(row[0]) for row in rows), default=1)
    fields = [("name", f"S{longest}"), ("offset", np.int64), ("size", np.int64), ("label", np.int64)]
    return np.array(rows, np.dtype(fields))


def _webdataset(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UsageError("reading shards needs webdataset: pip install 'trevsnn[shards]'.") from error


def compressed(path: Path) -> RunError:
    """The error to raise for a compressed shard."""
    return RunError(
        f"{path} is compressed, so that no picture in it can be read by itself: unpack it to a .tar, as gunzip does."
    )


class _Headers:
    """A shard as tarfile reads its headers, which may claim any size: no more is read at a time than one may have."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        if size > MOST_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.file.read(size)


@dataclass(frozen=True)
class _Member:
    """A member's name, where its content lies, and the content if it may be a label."""

    name: str
    offset: int
    size: int
    content: bytes


def _members(path: Path) -> list[dict[str, Any]]:
    """The members of a tar file that is whole, as ``group_by_keys`` takes them."""
    found = []
    with path.open("rb") as file:
        if file.read(8).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
            raise compressed(path)
        try:
            whole = file.seek(0, os.SEEK_END)
            file.seek(0)
            with tarfile.open(fileobj=cast("BinaryIO", _Headers(file)), mode="r:") as tar:
                for header in tar:
                    if header.isdir() or _METADATA.match(header.name):
                        continue
                    if not header.isreg() or header.issparse():
                        raise RunError(
                            f"{path}: {header.name} is a link, a device or a sparse file: write its content."
                        )
                    if header.offset_data + header.size > whole:
                        raise tarfile.ReadError(f"{header.name} has {header.size:,} bytes by its header")
                    content = b""
                    if header.name.lower().endswith((".cls", ".json")):
                        if header.size > MOST_LABEL:
                            raise RunError(
                                f"{path}: {header.name} has {header.size:,} bytes, more than a label needs: write it without "
                                "what is no label."
                            )
                        file.seek(header.offset_data)  # tarfile goes back to where it was by itself
                        content = file.read(header.size)
                    member = _Member(header.name, header.offset_data, header.size, content)
                    found.append({"fname": header.name, "data": member, "__url__": str(path)})
                file.seek(tar.offset)
                rest = file.read(1 << 20)
        except (tarfile.TarError, EOFError) as error:
            raise RunError(f"{path} is cut off, or no tar file ({error}): fetch it again.") from error
    # A tar file ends with blocks of zeros. Without them tarfile takes where it stopped for the end.
    if len(rest) < tarfile.BLOCKSIZE:
        raise RunError(f"{path} is cut off (it has no end): fetch it again.")
    if rest.strip(b"\0"):
        raise RunError(
            f"{path} is damaged, or several tar files in one (there is more after byte {tar.offset}): fetch it again, or "
            "keep a file for each."
        )
    return found


def _picture(path: Path, sample: dict[str, Any]) -> _Member:
    found = sorted(PICTURES & sample.keys())
    if len(found) == 1:
        return sample[found[0]]
    has = f"several pictures ({', '.join(found)})" if found else "no picture"
    raise RunError(
        f"{path}: sample {sample['__key__']} has {has}: it needs one, KEY.jpg, KEY.png or the like, where KEY has no dot."
    )


def _label(path: Path, sample: dict[str, Any]) -> int:
    """The class index in KEY.cls, or else the one named label in KEY.json."""
    member: _Member | None = sample.get("cls", sample.get("json"))
    if member is None:
        raise RunError(
            f'{path}: sample {sample["__key__"]} has no label: it needs KEY.cls, or KEY.json with a "label".'
        )
    text = member.content.decode("utf-8", "replace").strip()
    value: object = text
    if "cls" not in sample:
        try:
            value = json.loads(text)["label"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(f'{path}: {member.name} holds no "label": write a class index there, or KEY.cls.') from error
    if isinstance(value, bool) or re.fullmatch("[0-9]{1,9}", str(value)) is None:
        raise RunError(f"{path}: {member.name} holds the label {value!r:.40}: write a class index, 0 or more.")
    return int(str(value))
