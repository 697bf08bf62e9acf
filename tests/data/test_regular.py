"""Reading whole files that may be anything by their names."""

import os

import pytest

from trevsnn.data.regular import read_regular


def test_a_regular_file_is_read_also_through_a_link(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    assert read_regular(tmp_path / "file", 7) == read_regular(tmp_path / "link", 7) == b"content"
    with pytest.raises(ValueError, match="it has 7 bytes, more than the 6 that are read"):
        read_regular(tmp_path / "file", 6)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "nowhere", 7)


def test_nothing_else_is_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match="it is a pipe or a device, and no file"):
            read_regular(tmp_path / path, 7)
    with pytest.raises(ValueError, match="it is a folder, and no file"):
        read_regular(tmp_path, 7)
