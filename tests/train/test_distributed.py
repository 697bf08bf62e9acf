"""Data-parallel training in real processes: whole runs, under torchrun too."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from helpers import TINY_FLOAT16, folder_of_pictures, metrics
from processes import start_two
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.errors import UsageError
from trevsnn.run.checkpoint import load_checkpoint
from trevsnn.run.config import RunConfig
from trevsnn.run.folder import RunFolder
from trevsnn.train.processes import _launched, is_first, local_batch, make_fabric

SMALL = ["--model.channels", "[4,8]", "--batch_size", "256", "--epochs", "2", "--accelerator", "cpu", "--seed", "3"]


def torchrun(processes: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``torchrun -m trevsnn``; the two dashes keep its hands off trevsnn's options."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
               "-m", "--", "trevsnn", *arguments]  # fmt: skip
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors")


def test_two_processes_train_the_network_that_one_trains(tmp_path: Path):
    """In float64 with shared statistics: the same weights to rounding, the same figures, every item counted once."""
    options = [
        "train",
        *SMALL,
        "--precision",
        "64-true",
        "--ema_decay",
        "0.9",
        "--epochs",
        "1",
        "--optim.warmup_epochs",
        "0",
    ]
    output = tmp_path / "output"
    for process in start_two([*options, "--run", str(tmp_path / "two"), "--sync_batchnorm", "true"], str(output)):
        process.join()
        assert process.exitcode == 0, output.read_text()
    assert output.read_text().count("done:") == 1
    assert main([*options, "--run", str(tmp_path / "one")]) == 0
    assert main([*options, "--run", str(tmp_path / "parts"), "--accumulate", "2"]) == 0
    summaries = {name: json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two", "parts")}
    assert summaries["two"]["processes"] == 2
    assert summaries["two"]["batch"] == {"step": 256, "process": 128, "accumulate": 1}
    assert summaries["two"]["split_sha256"] == summaries["one"]["split_sha256"]
    assert summaries["two"]["last_accuracy"] == summaries["one"]["last_accuracy"]
    one, two, parts = (last_weights(tmp_path / name) for name in ("one", "two", "parts"))
    for name, weight in one.items():
        assert torch.allclose(two[name], weight, rtol=1e-6, atol=1e-8), name
    # Parts of a step have statistics of their own, so the same is not expected of them.
    assert not torch.allclose(parts["encoder.stem.conv.weight"], one["encoder.stem.conv.weight"], rtol=1e-6)
    assert summaries["parts"]["batch"] == {"step": 256, "process": 128, "accumulate": 2}


@pytest.mark.parametrize(
    "options", [[], ["--precision", "16-mixed"], ["--precision", "16-mixed", "--accumulate", "2"]], ids=str
)
def test_two_gpus_train_the_network_that_one_trains_cuda(tmp_path: Path, options):
    """By NCCL, with shared statistics."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs 2 CUDA devices")
    arguments = ["train", *SMALL, "--epochs", "1", "--optim.warmup_epochs", "0", "--accelerator", "cuda", *options]
    output = tmp_path / "output"
    sync = ["--sync_batchnorm", "true"]
    for process in start_two([*arguments, *sync, "--run", str(tmp_path / "two")], str(output)):
        process.join()
        assert process.exitcode == 0, output.read_text()
    assert main([*arguments, "--run", str(tmp_path / "one")]) == 0
    one, two = (metrics(tmp_path / name)[0] for name in ("one", "two"))
    assert float(two["train_loss"]) == pytest.approx(float(one["train_loss"]), rel=0.1)


def test_two_processes_train_in_float16_as_one_does(tmp_path: Path):
    """With shared statistics, and parts of a step: the gradient is unscaled once, and all processes have one scale."""
    folder_of_pictures(tmp_path / "data", ("train", "val"), n=16)
    options = [*TINY_FLOAT16, "--data.root", str(tmp_path / "data"), "--batch_size", "16", "--epochs", "2"]
    options += ["--optim.name", "adamw"]
    output = tmp_path / "output"
    two = ["--sync_batchnorm", "true", "--accumulate", "2", "--run", str(tmp_path / "two")]
    for process in start_two([*options, *two], str(output)):
        process.join()
        assert process.exitcode == 0, output.read_text()
    assert main([*options, "--accumulate", "2", "--run", str(tmp_path / "one")]) == 0
    skipped, moments, losses = [], [], []
    for name in ("one", "two"):
        rows, state = (
            metrics(tmp_path / name),
            load_checkpoint(max((tmp_path / name / "checkpoints").glob("step-*")))[1],
        )
        skipped.append(sum(int(row["skipped_steps"]) for row in rows))
        assert state["scaler"]["scale"] == 2.0 ** (16 - skipped[-1])
        own = state["optimizer"]["state"].values()
        moments.append(float(torch.cat([m["exp_avg"].flatten() / (1 - 0.9 ** float(m["step"])) for m in own]).norm()))
        losses.append(float(rows[-1]["val_loss"]))
    # A process's loss is the mean over half as many items, so that its gradients are twice as large before they are averaged.
    assert 1 <= skipped[0] <= skipped[1] <= skipped[0] + 1
    assert moments[1] == pytest.approx(
        moments[0], rel=0.5
    )  # of other steps; unscaled twice, or not, it would be thousands
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_run_of_two_processes_is_gone_on_with_by_one(tmp_path: Path):
    run = tmp_path / "run"
    done = torchrun(2, "train", *SMALL, "--run", str(run))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done:") == 1
    (run / "summary.json").unlink()
    first, latest = sorted((run / "checkpoints").glob("step-*"))
    for file in latest.iterdir():
        file.unlink()
    latest.rmdir()
    assert main(["train", "--resume", str(run)]) == 0
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["processes"], summary["epochs"], summary["steps"]) == (1, 2, 10)
    assert first.name == "step-000000005"


def train_with_a_first_process_slow_to_write(arguments: list[str]) -> int:
    begin = RunFolder.begin

    def begin_late(*args) -> None:  # it is called in the first process alone
        time.sleep(1)
        begin(*args)

    RunFolder.begin = begin_late  # type: ignore[method-assign]
    return main(arguments)


def test_no_process_looks_for_a_config_that_the_first_has_yet_to_write(tmp_path: Path):
    output = tmp_path / "output"
    arguments = ["train", *SMALL, "--epochs", "1", "--optim.warmup_epochs", "0", "--run", str(tmp_path / "run")]
    for process in start_two(arguments, str(output), train_with_a_first_process_slow_to_write):
        process.join()
        assert process.exitcode == 0, output.read_text()


def test_processes_of_slurm_and_torchrun_are_counted(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RANK", "3")  # left over from something else
    assert (_launched(), is_first()) == ((1, 1), True)
    for name, value in {"SLURM_PROCID": "8", "SLURM_NTASKS": "32", "SLURM_NNODES": "4"}.items():
        monkeypatch.setenv(name, value)
    assert (_launched(), is_first()) == ((8, 4), False)
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert is_first()
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    assert (_launched(), is_first()) == ((3, 2), False)


def test_what_salloc_and_srun_leave_out_is_said(monkeypatch):
    for name in ("TORCHELASTIC_RUN_ID", "SLURM_PROCID", "SLURM_NTASKS_PER_NODE", "SLURM_NNODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "32")  # as salloc leaves it, without processes
    assert (_launched(), is_first()) == ((1, 1), True)
    monkeypatch.setenv("SLURM_PROCID", "8")
    with pytest.raises(UsageError, match=r"SLURM's processes cannot be used: .*--ntasks-per-node"):
        make_fabric(RunConfig())


def test_a_step_s_items_are_shared_out_evenly_or_refused():
    config = RunConfig(batch_size=4096, accumulate=2)
    assert local_batch(config, 8) == 256
    with pytest.raises(UsageError, match="make it a multiple of 12, and 24 at least"):
        local_batch(config, 6)
    mixing = RunConfig(batch_size=12, data=DataConfig(mixup=0.2))
    with pytest.raises(UsageError, match="pair items, but a process has 3 at a time: make batch_size a multiple of 8"):
        local_batch(mixing, 4)


def test_mistakes_of_several_processes_are_one_sentence(tmp_path: Path):
    output = tmp_path / "output"
    for process in start_two(["train", *SMALL, "--batch_size", "63", "--run", str(tmp_path / "run")], str(output)):
        process.join()
        assert process.exitcode == 2
    assert (
        "batch_size is 63, to be shared by 2 processes x 1 parts of a step: make it a multiple of 2, and 4 at least"
        in output.read_text()
    )
    assert not (tmp_path / "run").exists()


def test_two_processes_count_what_one_counts(tmp_path, capsys):
    assert main(["evaluate", "digits", "--json", "--accelerator", "cpu"]) == 0
    alone = json.loads(capsys.readouterr().out)
    processes = start_two(
        ["evaluate", "digits", "--json", "--accelerator", "cpu", "--confusion", str(tmp_path / "c.csv")],
        str(tmp_path / "out"),
    )
    for process in processes:
        process.join()
        assert process.exitcode == 0
    (line,) = [line for line in (tmp_path / "out").read_text().splitlines() if line.startswith("{")]
    together = json.loads(line)
    for name in ("confusion", "classes", "accuracy", "top5", "items", "unreadable"):
        assert together[name] == alone[name]
    assert (tmp_path / "c.csv").is_file()
