"""Output where a terminal is not what one expects: of ASCII alone, a pipe that closes, without a home folder."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import trevsnn
from helpers import SMALL, folder_of_pictures, picture
from trevsnn.data import part

COMMAND = [sys.executable, "-m", "trevsnn"]
SOURCE = str(Path(trevsnn.__file__).parents[1])  # from whatever folder a command runs in


def run(arguments: list[str], folder: Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """A command's end, with ``options`` of :func:`subprocess.run`; of ``env`` those that differ."""
    different = {"PYTHONPATH": SOURCE, **options.pop("env", {})}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.run([*COMMAND, *arguments], cwd=folder, env=os.environ | different, check=False, **streams)


@pytest.fixture
def closed():
    """The writing end of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def test_an_ascii_terminal_gets_names_and_tables_in_ascii(tmp_path):
    name = "Größe 日本 [x].png"
    picture(0, (8, 8), "L").save(tmp_path / name)
    ascii_only = {
        "PYTHONIOENCODING": "ascii",
        "LC_ALL": "C",
        "TERM": "dumb",
        "COLUMNS": "120",
        "HOME": str(tmp_path),
    }
    done = run(["predict", "digits", name, "missing_é.png"], tmp_path, env=ascii_only)
    assert done.returncode == 1
    assert rb"Gr\xf6\xdfe \u65e5\u672c [x].png" in done.stdout
    assert rb"missing_\xe9.png" in done.stderr
    assert done.stdout.isascii()
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [["train", "--print_config"], ["predict", "digits", "p.png"], ["data", "list", "set"]]
)
def test_a_pipe_that_closes_ends_a_command_without_a_word(tmp_path, closed, arguments):
    picture(0, (8, 8), "L").save(tmp_path / "p.png")
    folder_of_pictures(tmp_path / "set", ("train", "val"))
    done = run(arguments, tmp_path, stdout=closed)
    assert (done.returncode, done.stderr) == (141, b"")


def test_a_training_goes_on_when_nobody_reads_it_any_more(tmp_path, closed):
    arguments = ["train", *SMALL, "--epochs", "1", "--optim.warmup_epochs", "0", "--batch_size", "512", "--run", "run"]
    done = run(arguments, tmp_path, stdout=closed)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "run" / "summary.json").is_file()


def test_a_user_without_a_home_folder_can_predict(tmp_path):
    picture(0, (8, 8), "L").save(tmp_path / "p.png")
    nobody = (
        "import pwd, sys\ndef nobody(number): raise KeyError(number)\npwd.getpwuid = nobody\n"
        "from trevsnn.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    )
    env = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR")}
    done = subprocess.run(
        [sys.executable, "-c", nobody, "predict", "digits", "p.png"], cwd=tmp_path, env=env | {"PYTHONPATH": SOURCE},
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_user_who_has_none_has_no_cache_anywhere(monkeypatch):
    monkeypatch.setattr(
        Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("Could not determine home directory."))
    )
    with pytest.raises(NotADirectoryError):
        (part.home_folder() / ".cache").mkdir(parents=True)
