"""The published training (Hu et al., ICML 2024), in numbers from its code and from the log beside it.

Published facts, of github.com/BICLab/T-RevSNN: ``optimizer.py`` (LAMB with eps 1e-8 and ``trust_clip``; parameters of one axis
do not decay, all others do), ``configs/small.yaml``, ``utils.py`` (adaptive clipping of every parameter), ``_init_weights`` of
its network, ``main_no_decoder.py`` (slopes), and ``small_reuse.out`` and ``asserts/small_resume.out`` (what a training
with 312 steps an epoch printed).
"""

import math

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from helpers import final_weights
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.data.config import DataConfig
from trevsnn.data.pictures.in_memory import Pictures
from trevsnn.network.encoders import slope_at
from trevsnn.network.start import published_start
from trevsnn.run.config import OptimConfig, RunConfig, recipe_config
from trevsnn.train.optim import build_optimizer, build_scheduler, clip_gradients
from trevsnn.train.state import TrainingState
from trevsnn.train.train import train

STEPS = 312  # an epoch: 1,281,167 pictures, 4,096 a step
PRINTED_RATES = {  # (epoch, step) -> learning rate, as printed with six decimals
    (0, 0): 0.000040, (0, 100): 0.000168, (0, 200): 0.000295, (0, 300): 0.000423, (1, 0): 0.000438, (2, 100): 0.000964,
    (3, 300): 0.001617, (42, 0): 0.007879, (42, 100): 0.007875, (46, 0): 0.007831, (171, 0): 0.003510, (173, 300): 0.003378,
    (246, 200): 0.000699, (250, 0): 0.000617,
}  # fmt: skip
PRINTED_SLOPES = {0: 0.0, 1: 0.0010, 2: 0.0039, 3: 0.0089, 42: 0.9382, 43: 0.9524, 45: 0.9755, 47: 0.9911}


def published(size: str = "tiny") -> RunConfig:
    return recipe_config(f"imagenet-{size}", ["--published", "true"])


def small_network() -> TRevSNN:
    """With the published network's kinds of parameters."""
    return TRevSNN(TRevSNNConfig(channels=(4, 6, 8, 10), timesteps=2, num_classes=5, encoder_stride=4))


def decay_by_name(model: nn.Module, config: RunConfig) -> dict[str, float]:
    names = {value: name for name, value in model.named_parameters()}
    groups = build_optimizer(model, config).param_groups
    return {names[value]: group["weight_decay"] for group in groups for value in group["params"]}


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_lamb_as_published(size):
    optimizer = build_optimizer(small_network(), published(size))
    assert type(optimizer).__name__ == "Lamb"
    for group in optimizer.param_groups:
        values = {name: group[name] for name in ("lr", "betas", "eps", "trust_clip", "max_grad_norm", "always_adapt")}
        assert values == {
            "lr": pytest.approx(0.008), "betas": (0.9, 0.999), "eps": 1e-8, "trust_clip": True, "max_grad_norm": 1.0,
            "always_adapt": False,
        }  # fmt: skip
        assert (group["bias_correction"], group["grad_averaging"], group["decoupled_decay"]) == (True, True, False)


def test_published_decay_leaves_out_biases_and_batchnorm_alone_and_ours_gains_gammas_and_alphas_too():
    model = small_network()
    theirs, ours = decay_by_name(model, published()), decay_by_name(model, recipe_config("imagenet-tiny"))
    assert set(theirs) == set(ours) == dict(model.named_parameters()).keys()
    undecayed = {name for name, decay in theirs.items() if decay == 0.0}
    assert undecayed == {name for name in theirs if name.endswith((".bias", ".bn.weight"))}
    assert {theirs[name] for name in theirs.keys() - undecayed} == {0.01}
    for name in (
        "encoder.stem.conv.gain", "levels.0.alphas.0", "levels.3.steps.1.gamma", "levels.1.steps.0.below.conv.weight",
        "levels.2.steps.1.expand1.dw1.weight", "levels.0.shared.pw2.gain", "heads.3.classifier2.weight", "heads.0.classifier.gain",
    ):  # fmt: skip
        assert theirs[name] == 0.01
        assert ours[name] == (0.01 if name.endswith(".weight") else 0.0)
    assert {name for name in theirs if theirs[name] != ours[name]} == {
        name for name in theirs if name.endswith((".gain", ".gamma")) or ".alphas." in name
    }


def test_rates_are_those_that_the_published_training_printed():
    config = published()
    optimizer = build_optimizer(nn.ParameterList([nn.Parameter(torch.ones(2, 2))]), config)
    schedule = build_scheduler(optimizer, config, STEPS)

    def rate(epoch: int, step: int = 0) -> float:
        schedule.step_update(epoch * STEPS + step)
        return optimizer.param_groups[0]["lr"]

    for at, printed in PRINTED_RATES.items():
        assert rate(*at) == pytest.approx(printed, abs=5.1e-7), at
    assert rate(0) == pytest.approx(4e-5)  # the start
    assert rate(10) == pytest.approx(0.00402)  # the middle of the warm-up
    assert rate(19, STEPS - 1) == pytest.approx(0.008 - 0.00796 / (20 * STEPS))
    assert rate(20) == pytest.approx(0.008)  # its end
    assert rate(160) == pytest.approx(0.004002)  # the middle of the cosine, (0.008 + 0.000004) / 2
    assert rate(299, STEPS - 1) == pytest.approx(4e-6, abs=1e-9)  # the last step


def test_slopes_are_those_that_the_published_training_printed():
    epochs = published().slope_epochs
    for epoch, printed in PRINTED_SLOPES.items():
        assert slope_at(epoch, epochs) == pytest.approx(printed, abs=5.1e-5)
    expected = {0: 0.0, 10: 0.09549150281, 25: 0.5, 49: 0.99901336421, 50: 1.0, 299: 1.0}
    assert {epoch: slope_at(epoch, epochs) for epoch in expected} == pytest.approx(expected)
    # Printed, but set on the network instead of its layers, which kept a slope of 1.
    as_it_ran = recipe_config("imagenet-tiny", ["--published", "true", "--slope_epochs", "0"])
    assert {slope_at(epoch, as_it_ran.slope_epochs) for epoch in expected} == {1.0}


@pytest.mark.parametrize("gain", [False, True], ids=["weight", "gain"])
@pytest.mark.parametrize("scale", [1e-3, 30.0], ids=["trust ratio under 1", "trust ratio clipped"])
def test_a_step_of_lamb_is_that_of_its_equations(float64, device64, gain, scale):
    """m = (1 - b1) g', v = (1 - b2) g'^2, u = m^ / (sqrt(v^) + eps) + decay w, w <- w - lr min(1, |w| / |u|) u."""
    generator = torch.Generator().manual_seed(3)
    shape = (6, 1, 1, 1) if gain else (6, 5, 3, 3)
    before = (scale * torch.randn(shape, generator=generator)).to(device64)
    parameter = nn.Parameter(before.clone())
    other = nn.Parameter(torch.ones(7, device=device64))  # a vector, which does not decay and is not adapted
    optimizer = build_optimizer(nn.ParameterList([parameter, other]), published())
    parameter.grad = torch.randn(shape, generator=generator).to(device64)
    other.grad = torch.full((7,), 2.0, device=device64)
    grad = parameter.grad / max(1.0, math.sqrt(float((parameter.grad**2).sum()) + 28.0))  # whole gradient of norm 1
    optimizer.step()
    moment, square = 0.1 * grad, 0.001 * grad**2
    update = (moment / 0.1) / ((square / 0.001).sqrt() + 1e-8) + 0.01 * before
    ratio = float(before.norm() / update.norm())
    assert (ratio > 1) == (scale > 1)
    assert torch.allclose(parameter.detach(), before - 0.008 * min(1.0, ratio) * update, rtol=1e-12, atol=1e-15)
    assert torch.allclose(other.detach(), torch.full_like(other, 1 - 0.008), rtol=1e-7)


def test_adaptive_clipping_takes_in_every_parameter(device):
    """Each unit's gradient to 0.02 of its weights' norm, at least 1e-3; a bias is one unit, a gain of each channel its own."""
    model = small_network().to(device)
    torch.manual_seed(0)
    for value in model.parameters():
        value.grad = 10 * torch.randn_like(value)
    before = {name: value.grad.clone() for name, value in model.named_parameters()}
    clip_gradients(model.parameters(), model.heads.parameters(), published().optim)
    for name, value in model.named_parameters():
        axes = tuple(range(1, value.ndim)) if value.ndim > 1 else (0,)
        most = 0.02 * torch.linalg.vector_norm(value.detach(), dim=axes, keepdim=True).clamp(min=1e-3)
        norm = torch.linalg.vector_norm(before[name], dim=axes, keepdim=True)
        assert torch.allclose(value.grad, before[name] * (most / norm).clamp(max=1), rtol=1e-5, atol=0), name


def test_every_parameter_starts_as_published():
    torch.manual_seed(0)
    config = TRevSNNConfig(channels=(32, 48, 64, 96), timesteps=4, num_classes=50)
    model = TRevSNN(config)
    with torch.no_grad():
        for value in model.parameters():
            value.fill_(7.0)  # whatever it began with
    published_start(model)
    for name, parameter in model.named_parameters():
        value = parameter.detach()
        if name.endswith(".bias"):
            assert not value.any(), name
        elif name.endswith((".gain", ".gamma", ".bn.weight")):  # the heads' gains too
            assert (value == 1).all(), name
        elif ".alphas." in name:
            assert (value == 0.5).all(), name
        else:  # every convolution: the depthwise DW1 and DW2, the links, the standardised
            error = 0.02 / math.sqrt(value.numel())
            assert abs(float(value.mean())) < 5 * error, name
            assert float(value.std()) == pytest.approx(0.02, abs=5 * error / math.sqrt(2)), name


@pytest.mark.parametrize("start", ["derived", "published"])
def test_a_run_begins_from_the_start_that_it_names(device, tmp_path, start):
    """Learning rates of 0 leave the weights as they began."""
    config = RunConfig(
        model=TRevSNNConfig(channels=(8, 16), timesteps=2, num_classes=10, in_chans=1, encoder_stride=1),
        data=DataConfig(name="digits", image_size=8), epochs=1, batch_size=718, accelerator=device.type, start=start,
        optim=OptimConfig(lr=0.0, min_lr=0.0, warmup_lr=0.0, warmup_epochs=0),
    )  # fmt: skip
    train(config, tmp_path / "run", Console(quiet=True))
    torch.manual_seed(config.seed)
    expected = TRevSNN(config.model)
    if start == "published":
        published_start(expected)
    weights = final_weights(tmp_path / "run")
    for name, value in expected.named_parameters():
        assert torch.equal(weights[f"model.safetensors/{name}"], value), name


@pytest.mark.parametrize("warmup", [False, True])
def test_averaged_weights_follow_at_once_or_after_a_warm_up(device, warmup):
    """Published: e <- 0.9992 e + 0.0008 w from the first step on. Ours begins with e = w, timm's warm-up."""
    model = small_network().to(device)
    config = RunConfig(model=model.config, ema_decay=0.9992, ema_warmup=warmup)
    part = Pictures(np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, np.int64), ("0",))
    part.mean, part.std = (0.0,) * 3, (1.0,) * 3
    fabric = Fabric(accelerator=device.type, devices=1)
    state = TrainingState(config, fabric, model, build_optimizer(model, config), part, part)
    gamma, averaged = model.levels[0].steps[0].gamma, state.evaluated.levels[0].steps[0].gamma
    nn.init.constant_(gamma, 2.0)
    expected = 1.0
    for step in range(3):
        state.step = step
        state.average()
        decay = 0.9992 if not warmup else (0.0 if step < 2 else 1 - 2 ** (-2 / 3))
        expected = decay * expected + (1 - decay) * 2.0
        assert averaged.detach().flatten()[0].item() == pytest.approx(expected, rel=1e-6)
