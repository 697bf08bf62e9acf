"""What is found in a shard, how it is kept, and which shards are refused."""

import gzip
import io
import json
import shutil
import tarfile
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from helpers import write_tar
from trevsnn.data.pictures import tar_index
from trevsnn.data.pictures.tar_index import index_shard, read_shards
from trevsnn.errors import RunError, UsageError

PLAIN = [("a.jpg", b"first"), ("a.cls", b"3"), ("b.jpg", b"the second"), ("b.cls", b"0\n")]


def contents(path: Path) -> list[tuple[str, bytes, int]]:
    """Names, contents and labels of a shard's pictures, read by the index."""
    whole = path.read_bytes()
    return [
        (name.decode(), whole[offset : offset + size], label)
        for name, offset, size, label in index_shard(path).tolist()
    ]


def test_pictures_and_labels_of_a_shard(tmp_path):
    write_tar(tmp_path / "a.tar", PLAIN)
    assert contents(tmp_path / "a.tar") == [("a.jpg", b"first", 3), ("b.jpg", b"the second", 0)]


def test_labels_in_json_and_what_is_ignored(tmp_path):
    """A sample's other members, names without a dot or with one at the beginning, folders, and webdataset's metadata."""
    long = "folder/" + "n" * 150
    members = [
        ("./one.json", b'{"label": 7, "caption": "x"}'), ("./one.JPEG", b"1"), ("./one.txt", b"x"), ("./one.seg.png", b"x"),
        ("README", b"x"), ("._two.jpg", b"x"), ("__meta__", b"x"),
        ("two.png", b"2"), ("two.json", b"no json"), ("two.cls", b"12"),
        (f"{long}.webp", b"3"), (f"{long}.json", b'{"label": "5"}'), ("größe.png", b"4"), ("größe.cls", b"1"),
    ]  # fmt: skip
    write_tar(tmp_path / "a.tar", members)
    expected = [("./one.JPEG", b"1", 7), ("two.png", b"2", 12), (f"{long}.webp", b"3", 5), ("größe.png", b"4", 1)]
    assert contents(tmp_path / "a.tar") == expected


def test_a_shard_without_samples_is_one(tmp_path):
    write_tar(tmp_path / "a.tar", [])
    assert len(index_shard(tmp_path / "a.tar")) == 0


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b""), ("b.jpg", b""), ("b.cls", b"1")], r"sample a has no label: it needs KEY.cls, or KEY.json"),
        ([("a.cls", b"1"), ("b.jpg", b""), ("b.cls", b"1")], r"sample a has no picture: it needs one, KEY.jpg"),
        ([("a.b.jpg", b""), ("a.b.cls", b"1")], r"sample a has no picture: .* where KEY has no dot"),
        ([("a.jpg", b""), ("a.png", b""), ("a.cls", b"1")], r"sample a has several pictures \(jpg, png\): it needs one"),
        ([("a.jpg", b""), ("a.JPG", b""), ("a.cls", b"1")], r"holds a.JPG twice: write each member once"),
        ([*PLAIN, ("a.png", b""), ("a.cls", b"1")], r"the members of a are in two places, or there are two samples"),
        ([("a.jpg", b""), ("a.cls", b"cat")], r"a.cls holds the label 'cat': write a class index, 0 or more"),
        ([("a.jpg", b""), ("a.cls", b"-1")], r"a.cls holds the label '-1': write a class index"),
        ([("a.jpg", b""), ("a.cls", b"1.0")], r"a.cls holds the label '1.0'"),
        ([("a.jpg", b""), ("a.cls", "\u0661".encode())], "a.cls holds the label '\u0661'"),
        ([("a.jpg", b""), ("a.cls", b"")], r"a.cls holds the label ''"),
        ([("a.jpg", b""), ("a.json", b'{"label": true}')], r"a.json holds the label True"),
        ([("a.jpg", b""), ("a.json", b'{"label": [1]}')], r"a.json holds the label \[1\]"),
        ([("a.jpg", b""), ("a.json", b'{"class": 1}')], r'a.json holds no "label": write a class index there, or KEY.cls'),
        ([("a.jpg", b""), ("a.json", b"[1]")], r'a.json holds no "label"'),
        ([("a.jpg", b""), ("a.json", b"{")], r'a.json holds no "label"'),
    ],
)  # fmt: skip
def test_a_bad_sample_is_said(tmp_path, members, message):
    write_tar(tmp_path / "bad.tar", members)
    with pytest.raises(RunError, match=rf"bad.tar:? {message}"):
        index_shard(tmp_path / "bad.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_a_link_is_said(tmp_path, kind):
    link = tarfile.TarInfo("b.jpg")
    link.type, link.linkname = kind, "a.jpg"
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(link)
    with pytest.raises(RunError, match=r"a.tar: b.jpg is a link, a device or a sparse file: write its content"):
        index_shard(tmp_path / "a.tar")


def test_a_compressed_shard_is_said(tmp_path):
    write_tar(tmp_path / "a.tar", PLAIN, "w:gz")
    with pytest.raises(
        RunError, match=r"a.tar is compressed, so that no picture .*: unpack it to a .tar, as gunzip does"
    ):
        index_shard(tmp_path / "a.tar")


def test_a_shard_cut_off_anywhere_is_said(tmp_path):
    """Also where a member ends, which a tar file without its end looks like to tarfile."""
    write_tar(tmp_path / "a.tar", PLAIN)
    whole = (tmp_path / "a.tar").read_bytes()
    end = len(whole.rstrip(b"\0"))
    for length in [*range(0, end, 37), *range(512, end, 512), -(-end // 512) * 512]:
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"cut.tar is cut off"):
            index_shard(tmp_path / "cut.tar")


def test_damage_and_joined_files_are_said(tmp_path):
    write_tar(tmp_path / "a.tar", PLAIN)
    whole = (tmp_path / "a.tar").read_bytes()
    for damaged in (whole[:1024] + b"x" + whole[1025:], whole + whole):
        (tmp_path / "a.tar").write_bytes(damaged)
        with pytest.raises(RunError, match=r"a.tar is damaged, or several tar files in one"):
            index_shard(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(gzip.compress(b"x")[3:] * 100)
    with pytest.raises(RunError, match=r"a.tar is cut off, or no tar file"):
        index_shard(tmp_path / "a.tar")


def test_the_index_is_kept_and_a_damaged_or_outdated_one_made_again(tmp_path, monkeypatch):
    shard, cache = tmp_path / "a.tar", tmp_path / "cache"
    write_tar(shard, PLAIN)
    (first,) = read_shards([shard], cache)
    (file,) = cache.iterdir()
    assert first.pictures_N.tolist() == index_shard(shard).tolist()
    content = file.read_bytes()
    with monkeypatch.context() as patch:
        patch.delattr(tar_index, "index_shard")  # so that it can only come out of the cache
        (again,) = read_shards([shard], cache)
    assert np.array_equal(again.pictures_N, first.pictures_N)
    for place in range(0, len(content), 3):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert read_shards([shard], cache)[0].pictures_N.tolist() == first.pictures_N.tolist()
    for damaged in (b"", content[:50], b"x" * 100):
        file.write_bytes(damaged)
        assert read_shards([shard], cache)[0].pictures_N.tolist() == first.pictures_N.tolist()
        assert len(file.read_bytes()) == len(content)
    write_tar(shard, [("c.jpg", b"x"), ("c.cls", b"9")])
    assert read_shards([shard], cache)[0].pictures_N["label"].tolist() == [9]
    assert [path.suffix for path in cache.iterdir()] == [".index", ".index"]


def test_an_index_of_another_shard_is_not_believed(tmp_path):
    """Nor one with other offsets, as numpy writes it; and what is written goes through no link."""
    cache = tmp_path / "cache"
    write_tar(tmp_path / "a.tar", PLAIN)
    write_tar(tmp_path / "b.tar", [("c.jpg", b"x"), ("c.cls", b"9")])
    read_shards([tmp_path / "a.tar"], cache)
    (own,) = cache.iterdir()
    read_shards([tmp_path / "b.tar"], cache)
    (other,) = set(cache.iterdir()) - {own}
    expected = index_shard(tmp_path / "a.tar").tolist()
    own.write_bytes(other.read_bytes())
    assert read_shards([tmp_path / "a.tar"], cache)[0].pictures_N.tolist() == expected
    shifted = index_shard(tmp_path / "a.tar")
    shifted["label"] = 1
    with own.open("wb") as file:
        np.save(file, shifted)
    assert read_shards([tmp_path / "a.tar"], cache)[0].pictures_N.tolist() == expected
    (tmp_path / "precious").write_bytes(b"mine")
    own.unlink()
    own.symlink_to(tmp_path / "precious")
    assert read_shards([tmp_path / "a.tar"], cache)[0].pictures_N.tolist() == expected
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert own.is_file()
    assert not own.is_symlink()


@pytest.mark.parametrize("name", ["a.cls", "a.json", "a.jpg"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_that_claims_gigabytes_is_said_before_memory_is_taken(tmp_path, name, kind):
    header = tarfile.TarInfo(name)
    header.size, header.type = 8 * 10**9, kind
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    tracemalloc.start()
    with pytest.raises(RunError, match=r"a.tar is cut off, or no tar file"):
        index_shard(tmp_path / "a.tar")
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_a_label_of_megabytes_is_refused(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.json", b" " * (2**24 + 1))])
    with pytest.raises(RunError, match=r"a.json has 16,777,217 bytes, more than a label needs"):
        index_shard(tmp_path / "a.tar")
    write_tar(tmp_path / "a.tar", [("a.jpg", b"x"), ("a.json", b"[" * 10**6)])
    with pytest.raises(RunError, match=r'a.json holds no "label"'):
        index_shard(tmp_path / "a.tar")


def test_nothing_in_the_cache_is_unpickled(tmp_path):
    """An array of objects in the index's place, whose content numpy would unpickle if it were allowed to."""
    write_tar(tmp_path / "a.tar", PLAIN)
    read_shards([tmp_path / "a.tar"], tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    out = io.BytesIO()
    np.savez(out, pictures=np.array([{"name": "evil"}], object))
    file.write_bytes(out.getvalue())
    assert read_shards([tmp_path / "a.tar"], tmp_path / "cache")[0].pictures_N["label"].tolist() == [3, 0]


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    write_tar(tmp_path / "a.tar", PLAIN)
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(RunError, match=r"the cache .*cache cannot be written \(.*\): set data.cache"):
        read_shards([tmp_path / "a.tar"], tmp_path / "cache")
    with pytest.raises(RunError, match=r"b.tar does not exist: has the data folder moved"):
        read_shards([tmp_path / "b.tar"], tmp_path)


def test_what_timm_and_img2dataset_write(tmp_path):
    """Members as in timm's shards of ImageNet, with cls beside json, and as in img2dataset's, with a label in json."""
    about = json.dumps({"label": 5, "filename": "n01/n01_1.JPEG"}).encode()
    write_tar(tmp_path / "timm.tar", [("n01_1.cls", b"5"), ("n01_1.jpg", b"x"), ("n01_1.json", about)])
    about = json.dumps({"caption": "a cat", "url": "https://", "key": "000000001", "label": 1}).encode()
    write_tar(tmp_path / "i2d.tar", [("000000001.jpg", b"y"), ("000000001.txt", b"a cat"), ("000000001.json", about)])
    assert contents(tmp_path / "timm.tar") == [("n01_1.jpg", b"x", 5)]
    assert contents(tmp_path / "i2d.tar") == [("000000001.jpg", b"y", 1)]


def test_members_lie_where_the_index_says_in_every_tar_format(tmp_path):
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        for name, content in PLAIN:
            (tmp_path / name).write_bytes(content)
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
            for name, _ in PLAIN:
                tar.add(tmp_path / name, f"{'d' * 60}/{'e' * 60}/{name}")
        found = contents(tmp_path / "a.tar")
        assert [(content, label) for _, content, label in found] == [(b"first", 3), (b"the second", 0)]
        assert all(one != other for (one, _, _), (other, _, _) in pairwise(found))


def test_a_missing_extra_is_said(tmp_path, monkeypatch):
    write_tar(tmp_path / "a.tar", PLAIN)
    monkeypatch.setitem(__import__("sys").modules, "webdataset.tariterators", None)
    with pytest.raises(UsageError, match=r"reading shards needs webdataset: pip install 'trevsnn\[shards\]'"):
        index_shard(tmp_path / "a.tar")
    shutil.rmtree(tmp_path)


def test_several_processes_find_what_one_finds(tmp_path):
    shards = [tmp_path / f"{number}.tar" for number in range(5)]
    for number, shard in enumerate(shards):
        write_tar(shard, [(f"{number}.jpg", b"x" * number), (f"{number}.cls", str(number).encode())])
    alone, shared = read_shards(shards, tmp_path / "one"), read_shards(shards, tmp_path / "two", workers=2)
    for one, other in zip(alone, shared, strict=True):
        assert (one.path, one.stamp, one.pictures_N.tolist()) == (other.path, other.stamp, other.pictures_N.tolist())
    assert [shard.pictures_N["label"].tolist() for shard in shared] == [[number] for number in range(5)]
    write_tar(shards[3], [("a.jpg", b"")])
    with pytest.raises(RunError, match=r"3.tar: sample a has no label"):
        read_shards(shards, tmp_path / "two", workers=2)
