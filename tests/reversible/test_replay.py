"""What a second pass finds as the first one did, and what it leaves alone."""

import pytest
import torch
from recurrences import Smooth, assert_close, build, everything

from trevsnn.reversible import run


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_random_state_is_replayed_and_left_as_the_forward_pass_left_it(device64, mode):
    case = build(Smooth, 3, 2, torch.float64, dropout=0.5, device=device64)
    _, reference = everything(*case, backprop="autograd")
    after = torch.rand(1), torch.rand(1, device=device64)
    _, grads = everything(*case, backprop=mode)
    assert torch.equal(torch.rand(1), after[0])
    assert torch.equal(torch.rand(1, device=device64), after[1])
    assert_close(grads, reference, 1e-12)


@pytest.mark.parametrize("mode", ["exact", "reversible"])
def test_autocast_is_replayed(device, mode):
    case = build(Smooth, 3, 2, torch.float32, alpha=0.9, device=device)
    with torch.autocast(device.type, torch.bfloat16):
        outputs, reference = everything(*case, backprop="autograd")
        got, grads = everything(*case, backprop=mode)
    dtypes = []
    handle = case[0][1][0].below.register_forward_hook(lambda module, args, out: dtypes.append(out.dtype))
    torch.manual_seed(1)
    with torch.autocast(device.type, torch.bfloat16):
        last, _ = run(*case, backprop=mode)
    last[-1].float().square().sum().backward()  # outside autocast, as one does
    handle.remove()
    assert dtypes == [torch.bfloat16] * 6  # shared over three steps, twice
    assert all(torch.equal(a, b) for a, b in zip(got, outputs, strict=True))
    assert_close(grads, reference, 4 * 2**-8)  # bfloat16's unit is 2^-8


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_batch_statistics_change_once_per_step(device64, mode):
    transforms, alphas, inputs, states = build(Smooth, 3, 2, torch.float64, device=device64)
    expected = []
    with torch.no_grad():
        run(transforms, alphas, inputs)
        for row in transforms:
            for module in row:
                expected.append([b.clone() for b in module.buffers()])
                module.norm.reset_running_stats()
    everything(transforms, alphas, inputs, states, backprop=mode)
    found = [list(module.buffers()) for row in transforms for module in row]
    assert all(torch.equal(a, b) for f, e in zip(found, expected, strict=True) for a, b in zip(f, e, strict=True))


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
def test_hooks_on_parameters_see_the_whole_gradient_once(device64, mode):
    transforms, alphas, inputs, _ = build(Smooth, 4, 2, torch.float64, device=device64)
    shared = transforms[0][0].below.weight
    calls = []
    shared.register_hook(lambda grad: calls.append(grad.clone()))
    last, _ = run(transforms, alphas, inputs, backprop=mode)
    sum(c.sum() for c in last).backward()
    assert len(calls) == 1
    assert torch.equal(calls[0], shared.grad)
