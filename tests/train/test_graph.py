"""A training step as one CUDA graph."""

import copy
import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from helpers import SMALL, assert_same
from trevsnn import deep_supervision_loss
from trevsnn.cli.main import main
from trevsnn.errors import UsageError
from trevsnn.run.config import parse_config
from trevsnn.train.fit import check_device
from trevsnn.train.graph import GraphedPasses
from trevsnn.train.processes import make_fabric

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--accelerator", "cpu"], "cuda_graph is for one process on CUDA, and this run has 1 of them on cpu"),
        (["--accumulate", "2"], "cuda_graph replays whole steps, but accumulate is 2"),
        (["--model.backprop", "reversible"], "cuda_graph and model.backprop 'reversible', which has to read alphas"),
    ],
)
def test_what_cannot_be_captured_is_refused(options, reason, tmp_path, capsys):
    assert main(["train", *SMALL, *options, "--cuda_graph", "true", "--run", str(tmp_path / "run")]) == 2
    assert re.search(reason, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "model.kernels='triton', but the network is on the device cpu, and they are for CUDA: use kernels='auto'"),
        (["--model.backprop", "autograd"], "kernels 'triton' are for backprop 'exact' and 'reversible'"),
    ],
)
def test_kernels_that_cannot_run_are_refused_before_there_is_a_run(options, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    options = [*SMALL, *options, "--accelerator", "cpu", "--model.kernels", "triton", "--precision", "bf16-mixed"]
    assert main(["train", *options, "--run", str(tmp_path / "run")]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_kernels_are_refused_in_float32(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UsageError, match=r"bfloat16 and float16, as in precision bf16-mixed, not for float32: use"):
        check_device(parse_config(["--recipe", "digits", "--model.kernels", "triton"]), Fabric(accelerator="cpu"))


def test_the_interpreter_is_refused_in_bfloat16_which_it_multiplies_wrongly(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    config = parse_config(["--recipe", "digits", "--model.kernels", "triton", "--accelerator", "cpu"])
    with pytest.raises(UsageError, match=r"Triton's interpreter has no products in bfloat16, only in float16: use"):
        check_device(config, make_fabric(replace(config, precision="bf16-mixed")))
    check_device(config, make_fabric(replace(config, precision="16-mixed")))


def test_a_captured_run_is_evaluated_anywhere(finished, tmp_path, capsys):
    run = shutil.copytree(finished, tmp_path / "run")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("cuda_graph: false", "cuda_graph: true"))
    assert main(["evaluate", str(finished), "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert main(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == expected["accuracy"]
    assert "cuda_graph: true" in config.read_text()


@needs_cuda
@pytest.mark.parametrize("mode", ["exact", "autograd"])
def test_replays_give_the_gradients_and_statistics_of_plain_steps_cuda(small_model, device, mode):
    if device.type != "cuda":
        pytest.skip("needs CUDA")
    model = small_model(torch.float64, in_chans=1, timesteps=3, backprop=mode)
    twin = copy.deepcopy(model)

    def passes_of(network):
        def passes(x, target):
            loss = deep_supervision_loss(network(x, all_heads=True), target)
            loss.backward()
            return loss.detach()

        return passes

    graphed = GraphedPasses(passes_of(model), model)
    optimizers = [torch.optim.SGD(network.parameters(), lr=0.1) for network in (model, twin)]
    for seed in range(4):
        torch.manual_seed(seed)
        x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64).to(device), torch.randint(5, (3,)).to(device)
        loss = graphed(x, target)
        twin.zero_grad()
        expected = passes_of(twin)(x, target)
        assert torch.allclose(loss, expected, rtol=1e-12)
        for (name, ours), plain in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert torch.allclose(ours.grad, plain.grad, rtol=1e-9, atol=1e-11), name
        for (name, ours), plain in zip(model.named_buffers(), twin.buffers(), strict=True):
            assert torch.allclose(ours, plain, rtol=1e-12), name
        for optimizer in optimizers:
            optimizer.step()
    with pytest.raises(
        ValueError, match=r"captured with \(3, 1, 16, 16\) of torch.float64, and is given \(1, 1, 16, 16\)"
    ):
        graphed(x[:1], target)


@needs_cuda
def test_replays_read_the_loss_scale_of_now_cuda(small_model, device):
    if device.type != "cuda":
        pytest.skip("needs CUDA")
    fabric = Fabric(accelerator="cuda", devices=1, precision="16-mixed")
    scaler = fabric.strategy.precision.scaler
    model = small_model(in_chans=1, timesteps=2)
    x, target = torch.randn(3, 1, 16, 16).to(device), torch.randint(5, (3,)).to(device)

    def passes(x, target):
        with fabric.autocast():
            loss = deep_supervision_loss(model(x, all_heads=True), target)
        fabric.backward(loss)
        return loss.detach()

    graphed, found = GraphedPasses(passes, model), []
    for scale in (256.0, 1024.0, None, 2.0**40):
        if scale is not None and found:
            scaler.update(scale)
        elif scale is None:
            scaler.load_state_dict({**scaler.state_dict(), "scale": 512.0})
        else:
            scaler.load_state_dict({**scaler.state_dict(), "scale": scale})
        loss = graphed(x, target)
        assert loss.isfinite()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert found[0].norm() > 0
    for grads, factor in zip(found[1:3], (4, 2), strict=True):
        assert (grads - factor * found[0]).norm() < 2e-3 * grads.norm()
    assert not found[3].isfinite().all()


@needs_cuda
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_captured_run_is_resumed_to_the_same_bits_cuda(tmp_path, precision):
    from test_resume import unfinish

    run = tmp_path / "run"
    options = ["--accelerator", "cuda", "--precision", precision, "--slope_epochs", "2", "--cuda_graph", "true"]
    assert main(["train", *SMALL, *options, "--run", str(run)]) == 0
    other = unfinish(run, tmp_path / "other", keep=1)
    assert main(["train", "--resume", str(other)]) == 0
    assert_same(run, other)
