"""Packed chunks of HDF5: what they unpack to is looked at before the HDF5 library unpacks them.

The library (2.0.0) makes as much memory as a packed chunk claims or fills, and where it fills less than a chunk, what was in the memory
before is read as its numbers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from trevsnn.data.events.formats.event import RefusedError
from trevsnn.data.events.formats.extra import need

DEFLATE, SHUFFLE, FLETCHER32, LZF, BLOSC, LZ4, ZSTD = 1, 2, 3, 32000, 32001, 32004, 32015
#: Filters that come with the library, whose chunks nothing else can look at, and no recording is known to have.
UNCHECKED = {4: "SZIP", 5: "N-bit", 6: "scale-offset"}
#: Bytes that are unpacked at a time.
PIECE = 1 << 20


def filters_of(dataset: Any) -> list[int]:
    """The numbers of a dataset's filters, in the order in which they were applied."""
    properties = dataset.id.get_create_plist()
    return [properties.get_filter(i)[0] for i in range(properties.get_nfilters())]


def check_chunks(dataset: Any) -> None:
    """Check that each chunk of a dataset unpacks to as many bytes as a chunk has, if its filters are known.

    Those of plugins other than Blosc, LZ4 and Zstandard are not looked at.

    Args:
        dataset: of h5py.

    Raises:
        RefusedError: it is packed by SZIP, N-bit or scale-offset, or twice.
        ValueError: a chunk unpacks to more or fewer bytes.
    """
    filters = filters_of(dataset)
    for code in filters:
        if code in UNCHECKED:
            raise RefusedError(
                f"its dataset {dataset.name} is packed by {UNCHECKED[code]}, and nothing says what its chunks unpack to: pack it by gzip, "
                "h5repack -f GZIP=4"
            )
    packing = [code for code in filters if code not in (SHUFFLE, FLETCHER32)]
    if len(packing) > 1:
        raise RefusedError(f"its dataset {dataset.name} is packed twice: pack it once, h5repack -f GZIP=4")
    if not dataset.chunks or (packing and packing[0] not in LENGTHS):
        return
    size = math.prod(dataset.chunks) * dataset.dtype.itemsize
    stored: list[Any] = []
    dataset.id.chunk_iter(stored.append)
    for chunk in stored:
        if chunk.size > size + size // 8 + PIECE or _length(dataset, chunk, filters, size) != size:
            raise ValueError(
                f"its dataset {dataset.name} has a chunk, from {chunk.chunk_offset[0]} on, that does not unpack to its {size} bytes"
            )


def _length(dataset: Any, chunk: Any, filters: Sequence[int], most: int) -> int:
    """The bytes that a stored chunk unpacks to, or a number that is not ``most``."""
    content, length = dataset.id.read_direct_chunk(chunk.chunk_offset)[1], None
    for i in reversed(range(len(filters))):
        if chunk.filter_mask >> i & 1:  # it was left out
            continue
        if filters[i] == FLETCHER32:
            content = content[:-4] if length is None else content
            length = None if length is None else length - 4
        elif filters[i] != SHUFFLE:
            length = LENGTHS[filters[i]](content, most + 4)
    return len(content) if length is None else length


def _deflated(content: bytes, most: int) -> int:
    unpacker, length = zlib.decompressobj(), 0
    try:
        while not unpacker.eof and length <= most:
            piece = unpacker.decompress(content, PIECE)
            if not piece and not unpacker.eof:
                return -1
            length, content = length + len(piece), unpacker.unconsumed_tail
    except zlib.error:
        return -1
    return length


def _lzf(content: bytes, most: int) -> int:
    """By LibLZF's format: a byte below 32 stands before so many literals and one; else its upper three bits, or where these are 7 those
    and the next byte, are the length of a copy, but for 2."""
    at, length, end = 0, 0, len(content)
    while at < end and length <= most:
        control = content[at]
        if control < 32:
            length, at = length + control + 1, at + control + 2
        elif control < 224:
            length, at = length + (control >> 5) + 2, at + 2
        else:
            length, at = length + 9 + (content[at + 1] if at + 1 < end else 0), at + 3
    return length if at == end else -1


def _blosc(content: bytes, most: int) -> int:
    """What the header says, by which Blosc unpacks."""
    return int.from_bytes(content[4:8], "little") if len(content) >= 16 else -1


def _lz4(content: bytes, most: int) -> int:
    """What the header says, by which the plugin unpacks."""
    return int.from_bytes(content[:8], "big")


def _zstd(content: bytes, most: int) -> int:
    """What the header says, beyond which Zstandard unpacks nothing."""
    zstandard = need("zstandard")
    try:
        return zstandard.get_frame_parameters(content).content_size
    except zstandard.ZstdError:
        return -1


LENGTHS: dict[int, Callable[[bytes, int], int]] = {
    DEFLATE: _deflated, LZF: _lzf, BLOSC: _blosc, LZ4: _lz4, ZSTD: _zstd,
}  # fmt: skip
