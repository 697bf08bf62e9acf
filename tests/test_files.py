"""Files that have their old content or the new one."""

import os

import pytest

from trevsnn.errors import RunError
from trevsnn.files import write_file


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path):
    for content in (b"old", b"new"):
        write_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("number", "remedy"), [(28, "make room"), (5, "see to that")])
def test_a_file_that_cannot_be_written_keeps_its_content(tmp_path, monkeypatch, number, remedy):
    write_file(tmp_path / "file", b"old")

    def refuse(handle):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(RunError, match=rf"file cannot be written \({os.strerror(number)}\): {remedy}, and go on"):
        write_file(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
