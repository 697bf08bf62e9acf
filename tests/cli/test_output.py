"""Output where a terminal is not what one expects: of ASCII alone, a pipe that closes, without a home folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import SMALL, picture
from trevsnn.data import part

COMMAND = [sys.executable, "-m", "trevsnn"]


def run(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    clean = {name: value for name, value in os.environ.items() if name not in ("HOME", "PYTHONIOENCODING")}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=clean | environment, capture_output=True, check=False)


def test_an_ascii_terminal_gets_names_and_tables_in_ascii(tmp_path):
    name = "Größe 日本 [x].png"
    picture(0, (8, 8), "L").save(tmp_path / name)
    ascii_only = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C", "TERM": "dumb", "COLUMNS": "120", "HOME": str(tmp_path)}
    done = run(["predict", "digits", name, "missing_é.png"], tmp_path, **ascii_only)
    assert done.returncode == 1
    assert rb"Gr\xf6\xdfe \u65e5\u672c [x].png" in done.stdout
    assert rb"missing_\xe9.png" in done.stderr
    assert done.stdout.isascii()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["train", "--help"],
        ["train", "--print_config"],
        ["predict", "digits", "p.png"],
        ["predict", "digits", "p.png", "--json"],
    ],
)
def test_a_pipe_that_closes_ends_a_command_without_a_word(tmp_path, arguments):
    picture(0, (8, 8), "L").save(tmp_path / "p.png")
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_training_goes_on_when_nobody_reads_it_any_more(tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    arguments = ["train", *SMALL, "--epochs", "1", "--optim.warmup_epochs", "0", "--run", "run"]
    done = subprocess.run([*COMMAND, *arguments], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run" / "summary.json").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to become a user whom nobody knows")
def test_a_user_without_a_home_folder_can_predict_and_is_told_where_a_cache_is_missing(tmp_path):
    tmp_path.chmod(0o777)
    for folder in tmp_path.parents:
        if folder.stat().st_mode & 0o005 != 0o005:
            pytest.skip("the folder of the test is closed to others")
    picture(0, (8, 8), "L").save(tmp_path / "p.png")
    (tmp_path / "p.png").chmod(0o644)
    clean = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [*COMMAND, "predict", "digits", "p.png"], cwd=tmp_path, env=clean, user=54321, group=54321, extra_groups=[],
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False), done.stderr


def test_a_user_who_has_none_has_no_cache_anywhere(monkeypatch):
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    with pytest.raises(NotADirectoryError):
        (part.home_folder() / ".cache").mkdir(parents=True)
