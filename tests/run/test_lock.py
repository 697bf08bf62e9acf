"""A run is trained by one process at a time."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trevsnn.cli.main import main
from trevsnn.errors import RunError
from trevsnn.run.config import recipe_config, to_yaml
from trevsnn.run.lock import RunLock, is_locked

HOLD = """
import sys, time
from pathlib import Path
from trevsnn.run.lock import RunLock
with RunLock() as lock:
    lock.take(Path(sys.argv[1], ".lock"), Path(sys.argv[1]))
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that trains the run ``tmp_path``, as far as its lock goes."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def take(folder: Path) -> None:
    with RunLock() as lock:
        lock.take(folder / ".lock", folder)


def test_a_second_process_is_told_and_a_dead_one_holds_nothing(tmp_path, holder, capsys):
    said = rf"{tmp_path} is being trained already, by process {holder.pid} on .*: wait for its end"
    with pytest.raises(RunError, match=said):
        take(tmp_path)
    assert is_locked(tmp_path / ".lock")
    (tmp_path / "config.yaml").write_text(to_yaml(recipe_config("digits")))
    assert main(["train", "--run", str(tmp_path)]) == 2
    assert "is being trained already, by another process: name another folder with --run" in capsys.readouterr().err
    assert main(["train", "--resume", str(tmp_path)]) == 1
    assert f"is being trained already, by process {holder.pid} on" in capsys.readouterr().err
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path / ".lock")
    take(tmp_path)


def test_a_child_that_was_forked_does_not_keep_the_lock(tmp_path):
    with RunLock() as lock:
        lock.take(tmp_path / ".lock", tmp_path)
        child = os.fork()
        if not child:
            time.sleep(600)
    try:
        code = f"from pathlib import Path; from trevsnn.run.lock import is_locked; print(is_locked(Path({str(tmp_path / '.lock')!r})))"
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_a_lock_says_of_its_holder_is_no_text_of_a_stranger_s(tmp_path, holder):
    (tmp_path / ".lock").write_text("process 1 on \x1b[2J")
    with pytest.raises(RunError, match=r"is being trained already: wait for its end"):
        take(tmp_path)


def test_a_lock_is_no_link(tmp_path):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(RunError, match=r"\.lock cannot be opened"):
        take(tmp_path)
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_lock_file_of_two_names_is_not_overwritten(tmp_path):
    (tmp_path / "mine").write_text("mine\n")
    (tmp_path / "run").mkdir()
    os.link(tmp_path / "mine", tmp_path / "run" / ".lock")
    with pytest.raises(RunError, match=r"\.lock is a file that has a second name elsewhere .*: remove it"):
        take(tmp_path / "run")
    assert (tmp_path / "mine").read_text() == "mine\n"
