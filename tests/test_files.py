"""Files that have their old content or the new one, and files that are plain."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from PIL import Image

from trevsnn.errors import RunError
from trevsnn.files import (
    append_to_file,
    figure_bytes,
    fresh_name,
    read_file,
    read_json,
    remove_leftovers,
    write_file,
    write_picture,
)


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


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    for name in ("file", ".file.part", ".trevsnn-0.part"):
        (tmp_path / name).symlink_to(mine)
    write_file(tmp_path / "file", b"new")
    assert (mine.read_bytes(), (tmp_path / "file").read_bytes()) == (b"mine", b"new")
    assert not (tmp_path / "file").is_symlink()
    (tmp_path / "log").symlink_to(mine)
    with pytest.raises(OSError, match="symbolic link"):
        append_to_file(tmp_path / "log", b"more")
    assert mine.read_bytes() == b"mine"


def test_a_place_below_a_file_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/new cannot be written"):
        write_file(tmp_path / "file" / "new", b"new")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_pipe_or_device_is_not_replaced(tmp_path, kind):
    path = tmp_path / "place"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
        except PermissionError:
            pytest.skip("only root makes devices")
    before = path.lstat()
    with pytest.raises(RunError, match="is a pipe or a device, and would be replaced by a file: give another place"):
        write_file(path, b"new")
    assert (path.lstat().st_ino, path.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert [other.name for other in tmp_path.iterdir()] == ["place"]


def test_a_file_has_the_permissions_that_its_user_gives_files(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "file", b"")
        append_to_file(tmp_path / "log", b"")
    finally:
        os.umask(before)
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "log")} == {0o640}


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "device"])
def test_only_regular_files_are_read_and_nothing_waits_for_a_pipe(tmp_path, kind):
    path = tmp_path / "file" if kind != "device" else Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        (tmp_path / "other").write_bytes(b"{}")
        path.symlink_to(tmp_path / "other")
    elif kind == "folder":
        path.mkdir()
    with pytest.raises((ValueError, IsADirectoryError), match=r"is a link|no regular file|Is a directory"):
        read_file(path, 10)
    if kind == "pipe":
        with pytest.raises(OSError, match="No such device"):
            append_to_file(path, b"")


def test_a_link_of_the_user_s_own_is_followed_to_a_regular_file_alone(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "to a pipe").symlink_to("pipe")
    assert read_file(tmp_path / "link", 7, links=True) == read_file(tmp_path / "file", 7, links=True) == b"content"
    with pytest.raises(ValueError, match="it is a pipe or a device, and no regular file"):
        read_file(tmp_path / "to a pipe", 7, links=True)
    with pytest.raises(ValueError, match="it is a folder, and no regular file"):
        read_file(tmp_path, 7, links=True)
    with pytest.raises(FileNotFoundError):
        read_file(tmp_path / "nowhere", 7, links=True)


def test_no_more_is_read_than_fits(tmp_path):
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(ValueError, match="1,099,511,627,776 bytes, and 1,000 at most"):
        read_file(tmp_path / "sparse", 1000)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "deep.json")


def test_what_was_never_completed_is_removed_and_links_lead_nowhere(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "file").write_bytes(b"mine")
    run = tmp_path / "run"
    run.mkdir()
    fresh_name(run).mkdir()
    write_file(run / "kept", b"")
    fresh_name(run).symlink_to(mine)
    remove_leftovers(run)
    assert ([path.name for path in run.iterdir()], (mine / "file").read_bytes()) == (["kept"], b"mine")


def test_a_kill_while_writing_leaves_the_old_file(tmp_path):
    write_file(tmp_path / "file", b"old")
    code = (
        "import os, signal, sys; from pathlib import Path; from trevsnn import files\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_file(Path(sys.argv[1]), b'new')"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False).returncode == -9
    assert (tmp_path / "file").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_picture_has_the_format_of_its_name_and_is_not_drawn_through_a_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "a.png").symlink_to(tmp_path / "mine")
    for name in ("a.png", "b.jpg", "c.svg", "d"):
        write_picture(Figure(figsize=(1, 1)), tmp_path / name)
    assert (tmp_path / "mine").read_text() == "mine"
    for name, kind in {"a.png": "PNG", "b.jpg": "JPEG", "d": "PNG"}.items():
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind
    assert "<svg" in (tmp_path / "c.svg").read_text()
    with pytest.raises(RunError, match=r"a\.odd cannot be drawn .*give a file that ends in \.png, \.svg or \.pdf"):
        write_picture(Figure(), tmp_path / "a.odd")


def test_texts_of_pictures_are_not_set_by_latex_though_the_working_folder_asks_for_it(tmp_path, monkeypatch):
    (tmp_path / "latex").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    (tmp_path / "latex").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with rc_context({"text.usetex": True}):
        figure = Figure()
        axes = figure.subplots()
        axes.plot([0, 1], label="a")
        axes.set(title="title", xlabel="x")
        axes.legend()
        content = figure_bytes(figure)
    assert content.startswith(b"\x89PNG")
    assert not (tmp_path / "ran").exists()
