"""Modules of one's own in the place of the network's: the lean passes compute them right, or leave them to be replayed."""

import copy

import pytest
import torch
from timm.layers import ScaledStdConv2d
from torch import nn

from conftest import gradients, lively, worst
from helpers import assert_exact_is_autograd, loss_of
from trevsnn.network.lean.step import is_lean
from trevsnn.network.norm import BatchNorm


def test_changed_modules_and_hooks_are_replayed_and_right(small_model, device):
    """Whoever changes a module gets the general way, not a wrong result of the lean one."""

    class Noisy(nn.Conv2d):
        def forward(self, x):
            return super().forward(x) * 1.5

    model = small_model(torch.float64, in_chans=1)
    step = model.levels[0].steps[1]
    assert is_lean(step, model.levels[0].shared)
    old = step.expand1.dw1
    step.expand1.dw1 = Noisy(4, 4, 3, padding=1, groups=4).to(device, torch.float64)
    step.expand1.dw1.load_state_dict(old.state_dict())
    assert not is_lean(step, model.levels[0].shared)
    rates = []
    model.levels[2].steps[0].expand1.register_forward_hook(lambda _, args, out: rates.append(out.mean().item()))
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64).to(device), torch.randint(5, (3,)).to(device)
    assert_exact_is_autograd(model, x, target)
    assert len(rates) == 3  # autograd once, exact twice
    assert len(set(rates)) == 1


class Doubled(nn.Conv2d):
    def forward(self, x):
        return 2 * super().forward(x)


def same(kind=nn.Conv2d, inputs=4, outputs=4, kernel=3, dilation=1, **options):
    """A convolution that keeps the size of a map."""
    return kind(inputs, outputs, kernel, padding=dilation * (kernel // 2), dilation=dilation, **options)


#: By name, where in level 0's step 1 a convolution is exchanged, for which, and whether the lean way computes it. (A link's
#: bias has a gradient of 0.)
EXCHANGED = {
    "dense": ("expand1.dw1", same, True),
    "dilated": ("expand2.dw1", lambda: same(kernel=5, dilation=2, groups=4), True),
    "groups of two": ("project1.dw2", lambda: same(groups=2), True),
    "no bias": ("project1.dw2", lambda: same(groups=4, bias=False), True),
    "standardised": ("project1.dw2", lambda: same(ScaledStdConv2d, groups=4), True),
    "oblong": ("expand1.dw1", lambda: nn.Conv2d(4, 4, (5, 7), padding=(2, 3), groups=4), True),
    "groups in PW1": ("expand1.pw1", lambda: nn.Conv2d(4, 16, 1, groups=2), True),
    "groups in PW2": ("project1.pw2", lambda: nn.Conv2d(16, 4, 1, groups=4), True),
    "3 x 3 in PW2": ("project1.pw2", lambda: same(inputs=16), True),
    "dilated link": ("above.conv", lambda: same(inputs=8, dilation=2, bias=False), True),
    "strided link": ("above.conv", lambda: nn.Conv2d(8, 4, 3, stride=2, bias=False), True),
    "unpadded link with groups": ("above.conv", lambda: nn.Conv2d(8, 4, 3, groups=2, bias=False), True),
    "reflecting": ("expand1.dw1", lambda: same(kernel=5, groups=4, padding_mode="reflect"), False),
    "circular link": ("above.conv", lambda: same(inputs=8, padding_mode="circular", bias=False), False),
    "padding by name": ("expand2.dw1", lambda: nn.Conv2d(4, 4, 4, padding="same", groups=4), False),
    "link without padding": ("above.conv", lambda: nn.Conv2d(8, 4, 3, padding="valid", bias=False), False),
    "of a class of its own": ("project1.dw2", lambda: same(Doubled, groups=4), False),
    "to one pixel": ("project1.dw2", lambda: nn.Conv2d(4, 4, 16), False),  # which is added to all
    "to one channel": ("project1.dw2", lambda: same(outputs=1), False),
    "link to one channel": ("above.conv", lambda: same(inputs=8, outputs=1, bias=False), False),
}


def exchanged(small_model, device, name, dtype):
    place, make, lean = EXCHANGED[name]
    options = {"timesteps": 3, "slice_bytes": 4096, "kernels": "eager"}  # kernels round in other places
    model = small_model(channels=(4, 8, 8), in_chans=1, alpha=0.9, **options)
    half, _, conv = place.partition(".")
    part = getattr(model.levels[0].steps[1], half)
    setattr(part, conv, make())
    if conv == "conv":
        part.bn = BatchNorm(part.conv.out_channels)
    lively(model.cpu().to(dtype), 0.9).to(device)
    assert is_lean(model.levels[0].steps[1], model.levels[0].shared) == lean
    return model


#: Autograd's way back through a reflecting convolution adds in any order on CUDA, and says so if a training before asked.
@pytest.mark.filterwarnings("ignore:reflection_pad2d_backward_cuda does not have a deterministic implementation")
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", EXCHANGED)
@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_an_exchanged_convolution_has_the_gradient_of_autograd(small_model, device64, name, mode):
    model = exchanged(small_model, device64, name, torch.float64)
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64).to(device64), torch.randint(5, (3,)).to(device64)
    model.set_backprop("autograd")
    expected = loss_of(model, x, target)
    reference = gradients(model, expected)
    model.set_backprop(mode)
    loss = loss_of(model, x, target)
    assert torch.allclose(loss, expected, rtol=1e-14)
    assert worst(gradients(model, loss), reference) < 1e-12


@pytest.mark.filterwarnings("ignore:reflection_pad2d_backward_cuda does not have a deterministic implementation")
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", EXCHANGED)
def test_an_exchanged_convolution_has_the_gradient_of_autograd_in_bfloat16(small_model, device, name):
    """Spikes are the same; gradients are sums of many products, each rounded to 8 bits in either way, in other orders."""
    model = exchanged(small_model, device, name, torch.float32)
    x, target = torch.randn(3, 1, 16, 16).to(device), torch.randint(5, (3,)).to(device)
    found = {}
    for mode in ("autograd", "exact"):
        model.set_backprop(mode)
        with torch.autocast(device.type, torch.bfloat16):
            loss = loss_of(model, x, target)
        found[mode] = loss.item(), gradients(model, loss)
    assert found["exact"][0] == found["autograd"][0]
    ours, reference = (torch.cat([g.flatten() for g in grads.values()]) for _, grads in found.values())
    assert (ours - reference).norm() <= 4 * 2**-8 * reference.norm()  # it is 2^-8; a wrong part shows as a tenth


@pytest.mark.parametrize(
    ("place", "part"),
    [
        ("below.bn", nn.Identity()),
        ("above.bn", nn.BatchNorm2d(4)),
        ("expand1.dw1", nn.Identity()),
        ("project1.pw2", nn.Sequential(nn.Conv2d(16, 4, 1))),
    ],
)
def test_a_part_in_the_place_of_another_is_replayed(small_model, device64, place, part):
    model = small_model(channels=(4, 4, 8), in_chans=1, alpha=0.9).double()
    level = model.levels[1]
    half, _, name = place.partition(".")
    setattr(level.steps[1].get_submodule(half), name, copy.deepcopy(part).to(device64, torch.float64))
    assert not is_lean(level.steps[1], level.shared)
    x, target = torch.randn(3, 1, 16, 16, dtype=torch.float64).to(device64), torch.randint(5, (3,)).to(device64)
    assert_exact_is_autograd(model, x, target)
