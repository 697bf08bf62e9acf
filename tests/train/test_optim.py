"""Optimizers, learning rates, clipping."""

import pytest
import torch

import trevsnn
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.train.optim import MUON_VECTORS, build_optimizer, build_scheduler, clip_gradients


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_matrices_alone_decay(optimizer):
    """With gradients of zero nothing but weight decay changes a weight."""
    model = trevsnn.TRevSNN(trevsnn.TRevSNNConfig(channels=(4, 8), timesteps=2, num_classes=5))
    config = RunConfig(optim=OptimConfig(name=optimizer, lr=0.1, weight_decay=0.1))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for value in model.parameters():
        value.grad = torch.zeros_like(value)
    build_optimizer(model, config).step()
    for name, value in model.named_parameters():
        vector = name.endswith(("bias", "gain", "gamma", "bn.weight")) or ".alphas." in name
        depthwise = ".dw" in name  # a matrix to AdamW, not to Muon
        decayed = 1 - 0.1 * 0.1 * (MUON_VECTORS if depthwise and optimizer == "muon" else 1)
        expected = before[name] * (1.0 if vector else decayed)
        assert torch.allclose(value, expected, rtol=1e-6, atol=0), name


def test_adamw_is_torch_s_one_operation_after_the_other():
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)) for _ in range(2))
    optim = OptimConfig(lr=0.01, weight_decay=0.1)
    optimizers = [
        build_optimizer(torch.nn.ParameterList([ours]), RunConfig(optim=optim)),
        torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1, foreach=False, fused=False),
    ]
    for _ in range(20):
        ours.grad = torch.randn(3, 4, dtype=torch.float64, generator=generator)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


def test_muon_s_matrices_step_orthogonally_and_its_vectors_as_adamw_s():
    holder = torch.nn.ParameterDict(
        {"matrix": torch.nn.Parameter(torch.zeros(8, 16)), "gain": torch.nn.Parameter(torch.zeros(5))}
    )
    for value in holder.values():
        value.grad = torch.rand_like(value) + 0.1
    build_optimizer(holder, RunConfig(optim=OptimConfig(name="muon", lr=0.1, weight_decay=0.0))).step()
    assert torch.allclose(holder["gain"], torch.full((5,), -0.1 / 5))  # Adam's first step is its rate
    singular = torch.linalg.svdvals(holder["matrix"].detach()) / (0.1 * 0.2 * 16**0.5)
    assert 0.6 < float(singular.min()) < float(singular.max()) < 1.3  # five Newton-Schulz iterations get that near to 1


def test_learning_rates_grow_with_the_batch_and_warm_up_takes_a_part_of_an_epoch():
    rates = {}
    for name, lr_per in {"plain": None, "ruled": 256}.items():
        optim = OptimConfig(lr=0.1, warmup_epochs=0.5, warmup_lr=0.0, lr_per=lr_per)
        config = RunConfig(batch_size=64, epochs=2, optim=optim)
        weight = torch.nn.Parameter(torch.ones(2, 2))
        holder = torch.nn.ParameterList([weight])
        optimizer = build_optimizer(holder, config)
        schedule = build_scheduler(optimizer, config, steps_per_epoch=10)
        rates[name] = []
        for step in range(21):
            schedule.step_update(step)
            rates[name].append(optimizer.param_groups[0]["lr"])
    assert rates["plain"][0] == 0
    assert rates["plain"][1] == pytest.approx(0.02)
    assert max(rates["plain"]) == rates["plain"][5] == pytest.approx(0.1)  # the cosine begins at the full rate
    assert rates["plain"][20] == pytest.approx(1e-6)
    assert rates["ruled"] == pytest.approx([rate / 4 for rate in rates["plain"]])


def test_clipping_is_timm_s_and_the_norm_is_the_one_before():
    weight, head = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    for mode in ("norm", "agc"):
        weight.grad, head.grad = torch.full((2, 3), 4.0), torch.full((2, 3), 3.0)
        norm = clip_gradients([weight, head], [head], OptimConfig(clip=0.5, clip_mode=mode))
        assert float(norm) == pytest.approx(150**0.5)
        if mode == "norm":
            assert torch.allclose(weight.grad, torch.full((2, 3), 4 * 0.5 / 150**0.5))
        else:  # each row's gradient to half its weights' norm; heads as they were
            assert torch.allclose(weight.grad.norm(dim=1), torch.full((2,), 0.5 * 3**0.5))
            assert torch.equal(head.grad, torch.full((2, 3), 3.0))


def test_a_warm_up_may_take_all_but_a_step_s_part_of_the_training():
    config = RunConfig(epochs=1, optim=OptimConfig(lr=0.1, warmup_lr=0.0, warmup_epochs=0.99))
    optimizer = build_optimizer(torch.nn.ParameterList([torch.nn.Parameter(torch.ones(2, 2))]), config)
    schedule = build_scheduler(optimizer, config, steps_per_epoch=3)
    rates = []
    for step in range(3):
        schedule.step_update(step)
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.0, 0.1 / 3, 0.2 / 3])
