"""Ctrl-C and SIGTERM, to real processes at random moments: the step is finished, all is saved, and --resume goes on."""

import os
import random
import re
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from helpers import assert_same, folder_of_pictures, metrics
from processes import start, start_two, wait_for
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.errors import Interrupted
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.train.interrupt import Interruption
from trevsnn.train.train import resume, train

EPOCHS, STEPS = 4, 10  # steps of an epoch


@pytest.fixture(autouse=True)
def _sigint_is_not_ignored():
    """As in a terminal: a shell's job in the background, such as this may be, ignores it, and so would all that it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 pictures to train on, and as many held out."""
    root = tmp_path_factory.mktemp("data")
    folder_of_pictures(root, ("train", "val"), n=40)
    return root


def options(data: Path) -> list[str]:
    return [
        "train", "--model.channels", "[2,4]", "--model.timesteps", "1", "--model.num_classes", "2", "--model.in_chans", "3",
        "--data.name", "folder", "--data.root", str(data), "--data.image_size", "8", "--batch_size", "8", "--ema_decay", "0.9",
        "--epochs", str(EPOCHS), "--optim.warmup_epochs", "1", "--accelerator", "cpu",
    ]  # fmt: skip


def latest_step(run: Path) -> int:
    return max((int(p.name[5:]) for p in (run / "checkpoints").glob("step-*")), default=0)


def check_sentence(text: str, run: Path) -> None:
    """The last line names what is on the disk, and nothing but sentences was printed."""
    assert "Traceback" not in text, text
    last = text.splitlines()[-1]
    step = latest_step(run)
    if step:
        epoch = -(-step // STEPS)
        command = f"trevsnn train --resume {run}"
        loading = f"trevsnn: interrupted; saved is step {step}: go on with {command}"  # what an earlier start saved
        trained = f"trevsnn: interrupted after step {step} (epoch {epoch} of {EPOCHS}), saved: go on with {command}"
        begun = loading.replace(
            ": go on", f" (epoch {epoch} of {EPOCHS}): go on"
        )  # when it was about to go on from there
        assert last in (loading, begun, trained), text
    elif (run / "config.yaml").exists():
        assert last == (
            f"trevsnn: interrupted before anything was saved: trevsnn train --resume {run} starts from the beginning"
        ), text
    else:
        assert last == "trevsnn: interrupted before the run began: nothing is saved", text


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupts."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert main([*options(data), "--run", str(run)]) == 0
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_signals_at_random_moments_lose_nothing(whole, data, tmp_path, number):
    """To the whole process group, as a terminal and torchrun send them, with its loading processes; the run saves at no
    other moment."""
    run, output = tmp_path / "run", tmp_path / "output"
    dice = random.Random(int(number))
    first = [*options(data), "--data.workers", "2", "--run", str(run)]
    for _ in range(3):
        output.unlink(missing_ok=True)
        process = start(["train", "--resume", str(run)] if run.exists() else first, output)
        wait_for(output, [process])
        if dice.random() < 0.7:
            wait_for(run / "checkpoints", [process])
            time.sleep(dice.uniform(0, 1))
        time.sleep(dice.uniform(0, 0.6))
        os.killpg(process.pid, number)
        process.join(60)
        text = output.read_text()
        if process.exitcode == 0:  # a fast machine
            break
        if text in ("", "trevsnn: interrupted\n"):  # while options were read
            assert process.exitcode in (130, -signal.SIGTERM)
            continue
        assert process.exitcode == 128 + number, text
        check_sentence(text, run)
    assert main(["train", "--resume", str(run)] if run.exists() else first) == 0
    assert_same(whole, run)
    assert [row["val_loss"] for row in metrics(run)] == [row["val_loss"] for row in metrics(whole)]


def test_two_processes_agree_on_the_step_although_their_signals_come_at_different_moments(data, tmp_path):
    whole, run, output = tmp_path / "whole", tmp_path / "run", tmp_path / "output"
    for process in start_two([*options(data), "--run", str(whole)], str(output)):
        process.join(120)
        assert process.exitcode == 0, output.read_text()
    dice = random.Random(1)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
        output.unlink(missing_ok=True)
        begun = (run / "config.yaml").exists()
        processes = start_two(
            ["train", "--resume", str(run)] if begun else [*options(data), "--run", str(run)], str(output)
        )
        wait_for(run / "config.yaml", processes)
        before = latest_step(run)
        wait_for(output, processes)
        while "epoch " not in output.read_text():  # both are among their steps
            assert all(process.is_alive() for process in processes)
            time.sleep(0.005)
        time.sleep(dice.uniform(0, 1))
        dice.shuffle(processes)
        for process in processes if number == signal.SIGTERM else processes[:1]:
            os.kill(process.pid, number)
            time.sleep(dice.uniform(0, 0.1))
        for process in processes:
            process.join(60)
        text = output.read_text()
        if [process.exitcode for process in processes] == [0, 0]:  # a fast machine
            break
        assert [process.exitcode for process in processes] == [128 + number] * 2, text
        assert text.count("interrupted") == 1, text
        check_sentence(text, run)
        assert latest_step(run) > before
    for process in start_two(["train", "--resume", str(run)], str(output)):
        process.join(120)
        assert process.exitcode == 0, output.read_text()
    assert_same(whole, run)


def config(data: Path) -> RunConfig:
    return RunConfig(
        model=TRevSNNConfig(channels=(2, 4), timesteps=1, num_classes=2, in_chans=3, encoder_stride=1),
        data=DataConfig(name="folder", root=str(data), image_size=8), epochs=2, batch_size=8, accelerator="cpu",
        optim=OptimConfig(warmup_epochs=0),
    )  # fmt: skip


class At:
    """Sends this process signals while item number ``place`` of a part is read for the ``time``-th time."""

    def __init__(self, monkeypatch, *, training: bool, calls: dict[int, list[int]]) -> None:
        from trevsnn.data.loading import TensorDataset

        plain, seen = TensorDataset.__getitem__, [0]

        def read(dataset, key):
            if dataset.training == training:
                seen[0] += 1
                for number in calls.get(seen[0], []):
                    os.kill(os.getpid(), number)
            return plain(dataset, key)

        monkeypatch.setattr(TensorDataset, "__getitem__", read)


def handlers() -> list[Any]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]


@pytest.mark.parametrize(
    ("training", "item", "step", "epochs"), [(True, 1, 1, 0), (True, 8 * 13 + 1, 14, 1), (False, 81, 20, 1)],
    ids=["first step", "a step", "evaluation"],
)  # fmt: skip
def test_from_python_it_is_a_keyboard_interrupt_that_leaves_no_handler(
    data, tmp_path, monkeypatch, training, item, step, epochs
):
    console, before = Console(quiet=True), handlers()
    train(config(data), tmp_path / "whole", console)
    with monkeypatch.context() as patch:
        At(patch, training=training, calls={item: [signal.SIGINT]})
        with pytest.raises(KeyboardInterrupt) as raised:
            train(config(data), tmp_path / "run", console)
    assert isinstance(raised.value, Interrupted)
    assert (raised.value.run, raised.value.step, raised.value.number) == (tmp_path / "run", step, signal.SIGINT)
    assert latest_step(tmp_path / "run") == step
    assert len(metrics(tmp_path / "run") if epochs else []) == epochs
    assert (tmp_path / "run" / "curves.png").exists() == (epochs > 0)
    assert handlers() == before
    resume(tmp_path / "run", console)
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_second_ctrl_c_ends_at_once_and_names_what_was_saved_before(data, tmp_path, monkeypatch):
    monkeypatch.setattr("trevsnn.train.interrupt.AT_ONCE", -1.0)
    At(monkeypatch, training=True, calls={8 * 13: [signal.SIGINT, signal.SIGTERM, signal.SIGINT]})
    with pytest.raises(Interrupted, match=r"interrupted; saved is step 10 \(epoch 1 of 2\): go on with") as raised:
        train(config(data), tmp_path / "run", Console(quiet=True))
    assert (raised.value.step, raised.value.number) == (10, signal.SIGINT)


def test_a_signal_that_is_delivered_twice_is_one(data, tmp_path, monkeypatch):
    At(monkeypatch, training=True, calls={5: [signal.SIGINT, signal.SIGINT]})
    with pytest.raises(Interrupted, match=r"after step 1 \(epoch 1 of 2\), saved"):
        train(config(data), tmp_path / "run", Console(quiet=True))


def test_in_another_thread_signals_are_left_alone():
    found: list[Any] = []

    def body() -> None:
        before = handlers()
        with Interruption():
            found.append(handlers() == before)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert found == [True]


def test_a_signal_that_is_ignored_stays_ignored():
    """As a shell has it for what runs in the background, and nohup."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.number
    finally:
        signal.signal(signal.SIGINT, before)


def test_while_data_are_loaded_nothing_is_saved_and_that_is_said(data, tmp_path, monkeypatch, capsys):
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    monkeypatch.setattr("trevsnn.train.train.check_fit", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main([*options(data), "--run", str(tmp_path / "run")]) == 143
    assert re.fullmatch("trevsnn: interrupted before the run began: nothing is saved\n", capsys.readouterr().err)
    assert not (tmp_path / "run").exists()
