"""Each kernel against its formula in float32, on odd sizes, where the sums before a threshold are exact in any order."""

import pytest
import torch
from torch import nn

from trevsnn.network.norm import BatchNorm, Statistics, normalise


def whole(shape, low=-4, high=4, unit=0.25):
    """Small multiples of 1/4: their products and sums are exact in 16 bits."""
    return torch.randint(low, high + 1, shape) * unit


def channels_last(maps, device, dtype=torch.float32):
    return maps.to(device, dtype).contiguous(memory_format=torch.channels_last)


def rows(maps):
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1]).float()


def near(ours, reference, dtype):
    """Up to the roundings of a result of this dtype."""
    assert (ours.float() - reference.float()).norm() <= 2 * torch.finfo(dtype).eps * reference.float().norm()


@pytest.mark.parametrize(
    ("channels", "shape", "bias"), [(16, (2, 5, 7), True), (24, (1, 3, 3), False), (80, (1, 9, 8), True)]
)
def test_the_hidden_map_is_computed_and_gone_back_through(kernel_device, low, channels, shape, bias):
    from trevsnn.network.kernels.hidden import HiddenMap

    torch.manual_seed(0)
    size, units = (shape[0], channels, *shape[1:]), 4 * channels
    u, grad = (channels_last(whole(size), kernel_device, low) for _ in range(2))
    few = torch.rand(units, channels) < 8 / channels
    w1 = (whole((units, channels), -2, 2) * few).to(kernel_device, low)
    w2 = torch.randn(channels, units).to(kernel_device, low)
    b1, b2 = whole((units,)).to(kernel_device, low), torch.randn(channels).to(kernel_device, low)
    found = HiddenMap(
        w1[..., None, None], b1 if bias else None, w2[..., None, None], b2 if bias else None, 0.5, 0.0, 1.0
    )
    h = rows(u) @ w1.float().t() + (b1.float() if bias else 0)
    assert torch.equal(h, h.to(low).float())  # so that every order of sums gives these
    spikes, inside = (h >= 0.5).float(), ((h >= 0) & (h <= 1)).float()
    assert 0.1 < float(spikes.mean()) < 0.9
    assert 0.05 < float(inside.mean()) < 0.9
    grad_h = (inside * (rows(grad) @ w2.float())).to(low).float()
    near(rows(found(u)), spikes @ w2.float().t() + (b2.float() if bias else 0), low)
    near(rows(found.backward_input(u, grad)), grad_h @ w1.float(), low)
    of_w1, of_b1, of_w2 = found.backward_weights(u, grad)
    near(of_w1, grad_h.t() @ rows(u), low)
    near(of_b1, grad_h.sum(0), low)
    assert torch.equal(of_w2, rows(grad).t() @ spikes)  # the spikes, bit for bit


def test_a_hidden_potential_that_is_no_number_stays_none(kernel_device, low):
    from trevsnn.network.kernels.hidden import HiddenMap

    u = channels_last(torch.zeros(1, 16, 2, 2), kernel_device, low)
    u[0, 3, 1, 0] = float("nan")
    ones = torch.ones(64, 16, 1, 1, device=kernel_device, dtype=low)
    found = HiddenMap(ones, None, ones.view(16, 64, 1, 1), None, 0.5, 0.0, 1.0)(u)
    assert found[0, :, 1, 0].isnan().all()
    assert int(found.isnan().sum()) == 16


class Convolved:
    """Depthwise kernels, and what they are to compute, of maps (b, C, H, W)."""

    def __init__(self, device, low, channels, size, shape, *, bias=True):
        from trevsnn.network.kernels.depthwise import Depthwise

        torch.manual_seed(0)
        dims = (shape[0], channels, *shape[1:])
        self.v, self.grad = (channels_last(torch.randn(dims), device) for _ in range(2))
        self.x, self.grad_y = (channels_last(torch.randn(dims), device, low) for _ in range(2))
        self.weight = torch.randn(channels, 1, size, size).to(device, low)
        self.bias = (torch.randn(channels) if bias else torch.zeros(channels)).to(device, low)
        self.gamma = torch.randn(1, channels, 1, 1, device=device)
        self.kernels = Depthwise(self.weight.float(), self.bias if bias else None, low, 0.5, 0.0, 1.0)
        self.low, self.padding = low, size // 2

    def conv(self, maps):
        maps, w, b = inputs = [t.float().clone().requires_grad_() for t in (maps, self.weight, self.bias)]
        return nn.functional.conv2d(maps, w, b, padding=self.padding, groups=len(b)), inputs

    def check_beginning(self):
        """Of a block, which convolves spikes."""
        v, grad = self.v, self.grad
        y, inputs = self.conv(v >= 0.5)
        near(self.kernels.of_spikes(v), y, self.low)
        of_x, of_w, of_b = torch.autograd.grad(y, inputs, self.grad_y.float())
        ours = self.kernels.backward(self.grad_y, v, outer=grad)
        near(ours[0], grad + ((v >= 0) & (v <= 1)) * of_x, self.low)
        near(ours[1], of_w[:, 0], torch.float16)
        near(ours[2], of_b, torch.float16)
        assert ours[0].dtype == torch.float32

    def check_end(self):
        """Of a block, which adds to the potential."""
        gamma = self.gamma
        y, inputs = self.conv(self.x)
        near(self.kernels.added(self.v, self.x, gamma), self.v + gamma * y, self.low)
        of_x, of_w, of_b = torch.autograd.grad(y, inputs, self.grad)
        ours = self.kernels.backward(self.grad, self.x, gamma=gamma)
        near(ours[0], gamma * of_x, self.low)
        near(ours[1], of_w[:, 0], torch.float16)
        near(ours[2], of_b, torch.float16)
        near(ours[3], (gamma * of_x).sum((0, 2, 3)), torch.float16)


# The interpreter takes a third of a second for each strip: 7 rows and 8 columns forward, and 2 and 4 backward.


def test_a_depthwise_convolution_with_what_stands_around_it(kernel_device, low):
    convolved = Convolved(kernel_device, low, 16, 3, (2, 2, 3))
    convolved.check_beginning()
    convolved.check_end()


@pytest.mark.parametrize("bias", [True, False])
def test_a_depthwise_convolution_of_single_pixels(kernel_device, low_without_products, bias):
    convolved = Convolved(kernel_device, low_without_products, 8, 1, (1, 3, 3), bias=bias)
    convolved.check_beginning()
    convolved.check_end()
    y, _ = convolved.conv(convolved.x)
    near(convolved.kernels.added(convolved.v, convolved.x, None), convolved.v + y, low_without_products)


@pytest.mark.parametrize(("channels", "size", "shape"), [(40, 5, (1, 3, 3)), (16, 7, (1, 4, 4))])
def test_a_depthwise_convolution_of_a_larger_kernel(kernel_device, low, channels, size, shape):
    convolved = Convolved(kernel_device, low, channels, size, shape)
    convolved.check_beginning()
    convolved.check_end()


def test_a_depthwise_convolution_of_more_channels_or_columns_than_a_program_has(kernel_device, low):
    Convolved(kernel_device, low, 72, 3, (1, 2, 5)).check_end()
    Convolved(kernel_device, low, 8, 3, (1, 1, 9)).check_beginning()


def test_a_program_of_a_depthwise_convolution_does_several_strips(kernel_device, low, monkeypatch):
    """Of two programs, and the second has some beyond the last."""
    from trevsnn.network.kernels import depthwise

    share, found = depthwise._share, []

    def of_two(maps, tile, programs):
        strips, _, (_, blocks) = share(maps, tile, programs)
        found.append(strips)
        return strips, strips // 2 + 1, (2, blocks)

    monkeypatch.setattr(depthwise, "_share", of_two)
    Convolved(kernel_device, low, 8, 3, (1, 8, 3), bias=False).check_beginning()
    assert found == [2, 4]


def test_weights_of_the_hidden_map_are_summed_over_several_tiles_of_pixels(kernel_device, low, monkeypatch):
    """Two for each of two programs, the last beyond the last pixel."""
    from trevsnn.network.kernels import hidden

    monkeypatch.setattr(hidden, "PROGRAMS", 2)
    torch.manual_seed(0)
    u, grad = (channels_last(whole((1, 16, 10, 15)), kernel_device, low) for _ in range(2))
    w1, w2 = (whole(shape, -1, 1).to(kernel_device, low) for shape in ((64, 16), (16, 64)))
    found = hidden.HiddenMap(w1[..., None, None], None, w2[..., None, None], None, 0.5, 0.0, 1.0)
    h = rows(u) @ w1.float().t()
    grad_h = ((h >= 0) & (h <= 1)) * (rows(grad) @ w2.float())
    of_w1, of_b1, of_w2 = found.backward_weights(u, grad)
    assert torch.equal(of_w1, grad_h.t() @ rows(u))
    assert torch.equal(of_b1, grad_h.sum(0))
    assert torch.equal(of_w2, rows(grad).t() @ (h >= 0.5).float())


def test_sums_that_float16_cannot_hold_are_right(kernel_device):
    """As loss scaling makes them: the maps are within its range, sums over pixels are not."""
    from trevsnn.network.kernels.depthwise import Depthwise
    from trevsnn.network.kernels.hidden import HiddenMap

    torch.manual_seed(0)
    grad, u = (channels_last(16 * whole((2, 16, 6, 7), 80, 120, 8), kernel_device, torch.float16) for _ in range(2))
    u = u / 2**11  # around 6
    assert grad.sum((0, 2, 3)).isinf().all()
    w1, w2 = whole((64, 16), -1, 1).to(kernel_device) / 16, whole((16, 64), -1, 1).to(kernel_device) / 16
    half1, half2 = w1.half()[..., None, None], w2.half()[..., None, None]
    of_w1, of_b1, of_w2 = HiddenMap(half1, None, half2, None, 0.5, 0.0, 1.0).backward_weights(u, grad)
    h = rows(u) @ w1.t()
    inside = ((h >= 0) & (h <= 1)).float()
    grad_h = (inside * (rows(grad) @ w2)).half().float()
    assert max(float(sums.abs().max()) for sums in (of_w1, of_b1)) > 65504
    near(of_w1, grad_h.t() @ rows(u), torch.float16)
    near(of_b1, grad_h.sum(0), torch.float16)
    near(of_w2, rows(grad).t() @ (h >= 0.5).float(), torch.float16)
    weight = torch.randn(16, 1, 3, 3, device=kernel_device)
    x, of_w, of_b, _ = Depthwise(weight, None, torch.float16, 0.5, 0.0, 1.0).backward(
        grad, u.float(), outer=grad.float()
    )
    assert min(float(of_w.min()), float(of_b.min())) > 65504
    near(of_b, grad.float().sum((0, 2, 3)), torch.float16)
    expected = nn.grad.conv2d_weight((u >= 0.5).float(), weight.shape, grad.float(), padding=1, groups=16)
    near(of_w, expected[:, 0], torch.float16)
    assert x.isfinite().all()


@pytest.mark.parametrize(
    ("channels", "size", "upper", "affine"),
    [(24, (5, 7), (3, 4), True), (24, (6, 4), (3, 2), True), (24, (4, 4), (4, 4), True), (72, (3, 5), (2, 3), False)],
)
def test_the_potential_is_the_sum_of_what_is_normalised(
    kernel_device, low_without_products, channels, size, upper, affine
):
    from trevsnn.network.kernels.potential import potential

    torch.manual_seed(0)
    low = low_without_products
    sources = []
    for height, width in (size, upper):
        bn = BatchNorm(channels, affine=affine).to(kernel_device)
        maps = torch.randn(2, channels, height, width).to(kernel_device, low)
        for parameter in bn.parameters():
            nn.init.normal_(parameter)
        mean, var = torch.randn(channels, device=kernel_device), torch.rand(channels, device=kernel_device) + 0.5
        sources.append((maps, bn, Statistics(mean, var, True, False)))
    with torch.no_grad():
        below, above = (normalise(maps, by, bn.weight, bn.bias, bn.eps) for maps, bn, by in sources)
        above = nn.functional.interpolate(above, size=size, mode="nearest")
        for ours, expected in (
            (potential(*sources), below + above),
            (potential(sources[0], None), below),
            (potential((sources[0][0], None, None), sources[1]), sources[0][0] + above),
        ):
            assert ours.dtype == low
            assert (ours.float() - expected.float()).abs().max() <= 2 * torch.finfo(low).eps * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("elements", [1, 7, 64, 4099])
def test_codes_have_the_bits_of_the_plain_operations(kernel_device, monkeypatch, dtype, elements):
    from trevsnn.neurons import Spike, kernels

    torch.manual_seed(0)
    neuron = Spike(0.3, -0.1, 0.9)
    v = torch.randn(3, elements).to(kernel_device, dtype)
    v.view(-1)[:3] = torch.tensor([float("nan"), 0.9, float("inf")])
    gradient = torch.randn(3, elements).to(kernel_device)
    bounds = [float(torch.tensor(bound, dtype=dtype)) for bound in (0.3, -0.1, 0.9)]
    bits = kernels.code(v, *bounds)
    monkeypatch.setenv("TREVSNN_KERNELS", "0")
    code = neuron.code(v)
    assert torch.equal(bits, code.bits)
    assert torch.equal(kernels.decode(bits, elements, 0, dtype), code.spikes(dtype))
    assert torch.equal(kernels.decode(bits, elements, 1, torch.float32, gradient), code.pull_back(gradient))
    spikes = neuron.fire(v).float().nan_to_num(7)
    for fired in (kernels.fire(v, bounds[0], torch.empty_like(gradient)), kernels.fire(v, bounds[0], v)):
        assert torch.equal(fired.float().nan_to_num(7), spikes)
        assert int(fired.isnan().sum()) == 1
    assert fired is v


def fail(*_):
    raise RuntimeError("Failed to find C compiler.")


def ones(bits, elements, place, dtype, times=None):
    return bits.new_ones((1, elements), dtype=dtype)


@pytest.mark.parametrize(
    ("name", "replaced", "reason"),
    [
        ("code", fail, r"they fail \(RuntimeError: Failed to find C compiler"),
        ("code", lambda v, *_: v.new_ones((1, 2), dtype=torch.uint8), "they give other codes than plain operations"),
        ("fire", lambda v, _, out: out.zero_(), "they give other spikes, spikes in place than plain operations"),
        ("fire", lambda v, _, out: out.copy_(v >= 0.5), "they give other spikes, spikes in place than"),  # NaN is lost
        ("decode", ones, "they give other spikes of codes, gradients than"),
    ],
)
def test_kernels_of_codes_are_tried_once_on_a_device(kernel_device, monkeypatch, name, replaced, reason):
    from trevsnn.neurons import kernels, tried_kernels

    tried_kernels.working_kernels.cache_clear()
    assert tried_kernels.working_kernels(kernel_device) is kernels
    tried_kernels.working_kernels.cache_clear()
    monkeypatch.setattr(kernels, name, replaced)
    expected = f"^Triton kernels are not used for codes on {kernel_device}: {reason}"
    with pytest.warns(UserWarning, match=expected) as warned:
        found = [tried_kernels.working_kernels(kernel_device) for _ in range(2)]
    tried_kernels.working_kernels.cache_clear()
    assert found == [None, None]
    assert len(warned) == 1
