"""Data-parallel training in real processes: gradients, statistics, whole runs under torchrun."""

import contextlib
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from conftest import FORKSERVER, gradients, lively, start_two
from helpers import TINY_FLOAT16, folder_of_pictures, metrics
from trevsnn import TRevSNN, TRevSNNConfig, deep_supervision_loss
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.errors import UsageError
from trevsnn.network.norm import BatchNorm, share_statistics
from trevsnn.run.checkpoint import load_checkpoint
from trevsnn.run.config import RunConfig
from trevsnn.train.processes import _launched, is_first, local_batch, make_fabric

MODES = ("exact", "reversible", "autograd")
BATCH = 8


def network(mode):
    torch.manual_seed(0)
    config = TRevSNNConfig(channels=(4, 8, 8), num_classes=5, in_chans=1, encoder_stride=1, backprop=mode)
    return lively(TRevSNN(config).double())


def all_heads_loss(model, x, target):
    return deep_supervision_loss(model(x, all_heads=True), target)


def last_head_loss(model, x, target):
    return nn.functional.cross_entropy(model(x), target)


def batch():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(BATCH, 1, 8, 8, dtype=torch.float64, generator=generator)
    return x, torch.randint(5, (BATCH,), generator=generator)


def own_part(rank, world):
    x, target = batch()
    return x[rank::world], target[rank::world]


def running(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers() if "running" in name}


def work(rank, folder, world):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    for shared in (False, True):
        for mode in MODES:
            module = network(mode)
            if shared:
                share_statistics(module)
            x, target = own_part(rank, world)
            wrapped = DistributedDataParallel(module)
            for _ in range(2):  # a second step finds the buckets as the first one left them
                found = gradients(module, all_heads_loss(wrapped, x, target))
            if rank == 0:
                torch.save((found, running(module)), f"{folder}/{mode}-{shared}.pt")
            for _ in range(3):
                found = gradients(module, last_head_loss(wrapped, x, target))
            if rank == 0:
                torch.save(found, f"{folder}/{mode}-{shared}-last.pt")
    dist.destroy_process_group()


def assert_gradients(found, whole, parts=None):
    """Those of the whole batch, or the mean of those of its parts."""
    assert found.keys() == whole.keys()
    for name, grad in found.items():
        expected = whole[name] if parts is None else torch.stack([part[name] for part in parts]).mean(0)
        assert float((grad - expected).norm()) <= 1e-12 * max(float(expected.norm()), 1e-2), name


@pytest.mark.parametrize("world", [1, 2, 4])
def test_gradients_of_several_processes_are_those_of_one_on_all_items(tmp_path: Path, world):
    """With statistics of their own, the mean of what each would have alone; with shared ones, those of the whole batch,
    for weights shared over time too."""
    processes = [FORKSERVER.Process(target=work, args=(rank, str(tmp_path), world)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    alone, last_alone = [], []
    for rank in range(world):
        module = network("autograd")
        x, target = own_part(rank, world)
        alone.append(gradients(module, all_heads_loss(module, x, target)))
        last_alone.append(gradients(module, last_head_loss(module, x, target)))
    module = network("autograd")
    for _ in range(2):
        x, target = batch()
        whole = gradients(module, all_heads_loss(module, x, target))
    last_whole = gradients(other := network("autograd"), last_head_loss(other, x, target))
    assert whole["levels.0.shared.pw2.weight"].norm() > 1e-3
    for shared in (False, True):
        for mode in MODES:
            found, statistics = torch.load(tmp_path / f"{mode}-{shared}.pt", weights_only=True)
            assert_gradients(found, whole, None if shared else alone)
            last = torch.load(tmp_path / f"{mode}-{shared}-last.pt", weights_only=True)
            # Where one head alone is asked for, DistributedDataParallel still gets a gradient of every one.
            others = {name for name in last if name.startswith(("heads.0", "heads.1", "heads.2"))}
            assert others == last.keys() - last_whole.keys()
            assert not any(last.pop(name).any() for name in others)
            assert_gradients(last, last_whole, None if shared else last_alone)
            if shared:
                for name, buffer in running(module).items():
                    assert torch.allclose(statistics[name], buffer, rtol=1e-12, atol=1e-14), name


def test_shared_statistics_are_those_of_batch_norm_on_one_process(tmp_path: Path):
    """Against PyTorch's own layer, with a world of one process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        ours, theirs = BatchNorm(3).double(), nn.BatchNorm2d(3).double()
        ours.shared = True
        for layer in (ours, theirs):
            nn.init.constant_(layer.weight, 1.7)
        x = torch.randn(4, 3, 5, 2, dtype=torch.float64)
        grad = torch.randn_like(x)
        results = []
        for layer in (ours, theirs):
            leaf = x.clone().requires_grad_()
            y = layer(leaf)
            y.backward(grad)
            results.append([y, leaf.grad, layer.weight.grad, layer.bias.grad, layer.running_mean, layer.running_var])
        for a, b in zip(*results, strict=True):
            assert torch.allclose(a, b, rtol=1e-12, atol=1e-13)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("low", [torch.float16, torch.bfloat16])
def test_shared_statistics_have_a_backward_pass_in_16_bits(tmp_path: Path, low):
    """With a world of one process the gradients of own statistics, in every mode."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        found = {}
        for mode in ("autograd", "exact"):
            for shared in (False, True):
                module = network(mode).float()
                if shared:
                    share_statistics(module)
                x, target = batch()
                with torch.autocast("cpu", low):
                    loss = all_heads_loss(module, x.float(), target)
                grads = gradients(module, loss)
                found[mode, shared] = loss, torch.cat([grad.flatten() for grad in grads.values()])
        for mode in ("autograd", "exact"):
            assert found[mode, True][0] == found[mode, False][0]  # the same statistics, so the same spikes
            own, shared = (found[mode, shared][1] for shared in (False, True))
            assert (shared - own).norm() < 4 * torch.finfo(low).eps * own.norm()
    finally:
        dist.destroy_process_group()


def nccl_work(rank, folder, world):
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # see conftest.py
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    for shared in (False, True):
        for mode in MODES:
            module = network(mode).to(device)
            if shared:
                share_statistics(module)
            wrapped = DistributedDataParallel(module, device_ids=[rank], gradient_as_bucket_view=True)
            x, target = (part.to(device) for part in own_part(rank, world))
            module.zero_grad()
            for part in (0, 1):  # as accumulate has it: gradients are shared after the second one
                with contextlib.nullcontext() if part else wrapped.no_sync():
                    loss = all_heads_loss(wrapped, x, target)
                    loss.backward()
            found = {name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None}
            if rank == 0:
                torch.save((loss.item(), found, running(module)), f"{folder}/{mode}-{shared}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2])
def test_statistics_are_shared_over_nccl_cuda(tmp_path: Path, world):
    """A world of one has what its own statistics give, and two processes what one has of all items."""
    if torch.cuda.device_count() < world:
        pytest.skip(f"needs {world} CUDA device(s)")
    processes = [FORKSERVER.Process(target=nccl_work, args=(rank, str(tmp_path), world)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    module = network("autograd").to("cuda")
    x, target = (part.to("cuda") for part in batch())
    for _ in range(2):
        loss = all_heads_loss(module, x, target)
        loss.backward()
    whole = {name: p.grad.cpu() for name, p in module.named_parameters() if p.grad is not None}
    for mode in MODES:
        own_loss, own, _ = torch.load(tmp_path / f"{mode}-False.pt", weights_only=True)
        shared_loss, found, statistics = torch.load(tmp_path / f"{mode}-True.pt", weights_only=True)
        assert_gradients(found, whole)
        for name, buffer in running(module).items():
            assert torch.allclose(statistics[name], buffer, rtol=1e-12, atol=1e-14), name
        if world == 1:
            assert shared_loss == pytest.approx(own_loss, rel=1e-13)
            assert_gradients(found, own)


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


SMALL = ["--model.channels", "[4,8]", "--batch_size", "64", "--epochs", "2", "--accelerator", "cpu", "--seed", "3"]


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
    assert summaries["two"]["batch"] == {"step": 64, "process": 32, "accumulate": 1}
    assert summaries["two"]["split_sha256"] == summaries["one"]["split_sha256"]
    assert summaries["two"]["last_accuracy"] == summaries["one"]["last_accuracy"]
    one, two, parts = (last_weights(tmp_path / name) for name in ("one", "two", "parts"))
    for name, weight in one.items():
        assert torch.allclose(two[name], weight, rtol=1e-6, atol=1e-8), name
    # Parts of a step have statistics of their own, so the same is not expected of them.
    assert not torch.allclose(parts["encoder.stem.conv.weight"], one["encoder.stem.conv.weight"], rtol=1e-6)
    assert summaries["parts"]["batch"] == {"step": 64, "process": 32, "accumulate": 2}


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
    assert (summary["processes"], summary["epochs"], summary["steps"]) == (1, 2, 44)
    assert first.name == "step-000000022"


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
