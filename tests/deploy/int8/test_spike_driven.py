"""The spike-driven engine against ONNX Runtime on the same file, and its convolutions against PyTorch's."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from helpers import example, trained_like
from trevsnn.deploy.folded import fold
from trevsnn.deploy.int8 import layers, loops_numpy
from trevsnn.deploy.int8 import product as integer_product
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.int8.layers import Hidden, IntegerConv, IntegerDepthwise, filled, numbers
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.deploy.onnx.model import OnnxModel

VARIANTS = [
    {}, {"input": "event", "timesteps": 3}, {"encoding": "grouped"}, {"encoder_stride": 2}, {"kernel_size": 5},
    {"channels": (1, 3, 40)}, {"slope": 0.5},
]  # fmt: skip


def constants(generator, outputs, inputs, kernel, from_zero, to_zero):
    """Those of a QLinearConv: random weights, scales that spread codes over their range, and biases."""
    weight = generator.integers(-127, 128, (outputs, inputs, kernel, kernel)).astype(np.int8)
    scale = generator.uniform(0.001, 0.05, outputs).astype(np.float32)
    bias = generator.integers(-2000, 2000, outputs).astype(np.int32)
    one, zeros = np.float32(1), np.zeros(outputs, np.int8)
    return [one, np.uint8(from_zero), weight, scale, zeros, one, np.uint8(to_zero), bias]


def expected(codes_BHWC, parts, groups=1, **options):
    """The codes by PyTorch's convolution in float64, whose sums are exact, and ONNX's rule for rounding."""
    _, from_zero, weight, scale, _, _, to_zero, bias = parts
    x = torch.from_numpy(codes_BHWC.astype(np.float64) - float(from_zero)).movedim(-1, 1)
    sums = conv2d(x, torch.from_numpy(weight.astype(np.float64)), groups=groups, **options).movedim(1, -1).numpy()
    return np.clip(np.rint((sums + bias).astype(np.float32) * scale) + float(to_zero), 0, 255).astype(np.uint8)


def assert_filled(found, right, value):
    """A map is right, and its channels filled up to a multiple of 32 by such of one value."""
    channels = right.shape[-1]
    assert np.array_equal(found[..., :channels], right)
    assert found.shape == (*right.shape[:-1], -(-channels // 32) * 32)
    assert (found[..., channels:] == value).all()


def exported(folded, folder):
    """The 8-bit file of a network, and inputs that it was calibrated on."""
    x = example(folded.config, batch=4).float()
    export_integer(folded, x, folder / "model.onnx")
    return folder / "model.onnx", x


def convolutions(folded, name):
    """All of a folded network by that name, one at least."""
    found = [module for path, module in folded.named_modules() if path.endswith(name)]
    assert found
    return found


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 140), st.integers(1, 420)),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(1, 3), st.integers(3, 7), st.integers(3, 7)),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    crossover=st.sampled_from([0.0, 1.1]),
)
def test_a_convolution_of_spikes_dense_and_spike_driven(seed, channels, kernel, stride, size, rate, crossover):
    generator = np.random.default_rng(seed)
    inputs, outputs = channels
    spikes = (generator.random((*size, inputs)) < rate).astype(np.uint8)
    parts = constants(generator, outputs, inputs, kernel, 0, 128)
    padding = kernel // 2
    conv = IntegerConv(parts, {"strides": [stride] * 2, "pads": [padding] * 4}, crossover, spiking=True)
    found = conv(filled(spikes))
    assert_filled(found, expected(spikes, parts, stride=stride, padding=padding), 128)
    assert conv.rate is not None
    assert 0 <= conv.rate <= 1
    assert kernel > 1 or stride > 1 or conv.rate == pytest.approx(spikes.mean())
    assert np.array_equal(conv(filled(spikes)), found)  # by the rate of the first call


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 70)),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(1, 3), st.integers(3, 20), st.integers(3, 20)),
)
def test_a_convolution_of_pictures(seed, channels, kernel, stride, size):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (*size, channels[0])).astype(np.uint8)
    parts = constants(generator, channels[1], channels[0], kernel, 128, 128)
    conv = IntegerConv(parts, {"strides": [stride] * 2, "pads": [kernel // 2] * 4}, 0.0, picture=True)
    assert_filled(conv(codes), expected(codes, parts, stride=stride, padding=kernel // 2), 128)
    assert conv.rate is None


def test_columns_of_large_maps_come_in_parts():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 256, (2, 90, 101, 60)).astype(np.uint8)
    parts = constants(generator, 5, 60, 3, 128, 128)
    conv = IntegerConv(parts, {"strides": [1, 1], "pads": [1] * 4}, 0.0)
    padded = filled(codes, value=128)
    assert len(list(conv.columns(padded, conv.output_size(padded)))) > 4
    assert_filled(conv(padded), expected(codes, parts, padding=1), 128)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 70),
    kernel=st.sampled_from([1, 3, 5, 7]),
    size=st.tuples(st.integers(1, 3), st.integers(1, 11), st.integers(1, 11)),
)
def test_depthwise_convolutions_of_spikes_and_of_numbers(seed, channels, kernel, size):
    generator = np.random.default_rng(seed)
    threshold = np.float32(0.5)
    potential = filled(generator.normal(size=(*size, channels)).astype(np.float32))
    potential[0, 0, 0, 0] = threshold
    parts = constants(generator, channels, 1, kernel, 0, 0)
    spikes = (potential[..., :channels] >= threshold).astype(np.uint8)
    given_codes = IntegerDepthwise(parts).of_spikes(threshold, potential)
    assert_filled(given_codes, expected(spikes, parts, channels, padding=kernel // 2), 0)

    parts = constants(generator, channels, 1, kernel, 128, 128)
    codes = generator.integers(0, 256, (*size, channels)).astype(np.uint8)
    step, alpha = np.float32(0.013), filled(generator.normal(size=channels).astype(np.float32))
    previous = filled(generator.normal(size=(*size, channels)).astype(np.float32))
    added = (expected(codes, parts, channels, padding=kernel // 2).astype(np.float32) - np.float32(128)) * step
    conv, padded = IntegerDepthwise(parts), filled(codes, value=128)
    state = potential[..., :channels] + added
    assert_filled(conv.added(step, None, potential, padded), state, 0)
    assert_filled(
        conv.added(step, alpha, potential, padded, previous),
        alpha[:channels] * previous[..., :channels] + state, 0,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 5)),
    times=st.integers(1, 2),
    cut=st.booleans(),
    added=st.booleans(),
)
def test_numbers_of_codes(seed, size, times, cut, added):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 256, (*size, 32)).astype(np.uint8)
    whole = codes.repeat(times, 1).repeat(times, 2)
    wanted = (times * size[1] - cut, times * size[2] - cut)
    step = np.float32(0.3)
    right = (whole[:, : wanted[0], : wanted[1]].astype(np.float32) - np.float32(7)) * step
    potential = [generator.normal(size=right.shape).astype(np.float32)] if added else []
    found = numbers(7, step, times, wanted if cut else None, *potential, codes)
    assert np.array_equal(found, sum(potential, start=right))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 140)),
    pixels=st.sampled_from([1, 5, 700]),
    scale=st.sampled_from([1e-6, 0.5, 0.03125, 0.0041, 3.0]),  # with 0.5 and 0.03125 sums come to half a step
    crossover=st.sampled_from([0.0, 1.1]),
    arranged=st.booleans(),
)
def test_hidden_neurons_fire_where_their_code_is_one_or_more(seed, channels, pixels, scale, crossover, arranged):
    generator = np.random.default_rng(seed)
    inputs, hidden = channels
    maps = generator.integers(0, 128, (1, 1, pixels, inputs)).astype(np.uint8)
    first = constants(generator, hidden, inputs, 1, 0, 0)
    first[3] = np.full(hidden, scale, np.float32)
    second = constants(generator, inputs, hidden, 1, 0, 128)
    plain = {"strides": [1, 1], "pads": [0] * 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_product, "PACKED", 0 if arranged else 2**40)
        expand = IntegerConv(first, plain, crossover, firing=True)
        project = IntegerConv(second, plain, crossover, spiking=True)
    neurons = expand(filled(maps))
    assert isinstance(neurons, Hidden)
    codes = expected(maps, first)
    assert expand.threshold is not None
    spikes = np.concatenate([part > expand.threshold for _, part in neurons.parts()])
    assert np.array_equal(spikes[:, :hidden].reshape(codes.shape), codes >= 1)
    assert not spikes[:, hidden:].any()
    assert_filled(project(neurons), expected((codes >= 1).astype(np.uint8), second), 128)
    assert project.rate == pytest.approx((codes >= 1).mean())


def test_sums_of_many_rows_of_the_largest_weights_do_not_run_over():
    """More than 256 rows of 127 are more than 16 bits hold."""
    parts = constants(np.random.default_rng(0), 3, 1500, 1, 0, 0)
    parts[2] = np.stack([np.full((1500, 1, 1), value, np.int8) for value in (127, -127, 1)])
    parts[3], parts[7] = np.float32([255 / (127 * 1500), 255 / (127 * 1500), 0.1]), np.zeros(3, np.int32)
    conv = IntegerConv(parts, {"strides": [1, 1], "pads": [0] * 4}, 1.1, spiking=True)
    assert_filled(conv(filled(np.ones((1, 1, 2, 1500), np.uint8))), np.uint8([[[[255, 0, 150]] * 2]]), 0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.tuples(st.integers(1, 300), st.integers(1, 130), st.integers(1, 130)),
    signed=st.booleans(),
    way=st.sampled_from(["as chosen", "arranged", "integer", "float"]),
)
def test_products_are_exact_in_every_way(seed, sizes, signed, way):
    generator = np.random.default_rng(seed)
    pixels, inputs, outputs = sizes
    maps = generator.integers(-128 if signed else 0, 128, (pixels, inputs)).astype(np.int8)
    weight = generator.choice([-127, 127], (inputs, outputs)).astype(np.int8)
    with pytest.MonkeyPatch.context() as patch:
        if way == "arranged":
            patch.setattr(integer_product, "PACKED", 0)
        elif way != "as chosen":
            patch.setattr(integer_product, "_packed_is_exact", lambda: False)
        if way == "float":
            patch.setattr(integer_product, "_integer_is_exact", lambda: False)
        product = integer_product.IntegerProduct(weight, signed=signed)
    assert product.packed == (way == "arranged" and not signed)
    assert (product.dtype == np.int32) == (way in ("as chosen", "integer") or (way == "arranged" and signed))
    found = product(maps)
    assert found.dtype == product.dtype
    assert np.array_equal(found, maps.astype(np.int64) @ weight.astype(np.int64))


@pytest.mark.parametrize("options", VARIANTS)
@pytest.mark.parametrize("crossover", [0.0, 0.3, 1.1])
def test_the_engine_gives_the_logits_of_onnx_runtime(options, crossover, tmp_path):
    folded = fold(trained_like(**options).float())
    path, x = exported(folded, tmp_path)
    engine, runtime = SpikeDriven(path, crossover=crossover), OnnxModel(path)
    for part in (x, x[:1]):
        torch.testing.assert_close(engine(part), runtime(part), rtol=1e-6, atol=1e-6)
    assert len(engine.rates) > 2 * folded.config.timesteps * len(folded.config.channels)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(engine(x[:1].requires_grad_()), engine(x[:1].detach()))
    with pytest.raises(ValueError, match="takes"):
        engine(x[..., :-1])
    with pytest.raises(ValueError, match="NaN"):
        engine(torch.full_like(x, torch.nan))


@pytest.mark.parametrize("options", VARIANTS)
def test_without_numba_it_gives_the_same(options, tmp_path, monkeypatch):
    path, x = exported(fold(trained_like(**options).float()), tmp_path)
    right = SpikeDriven(path)(x)
    monkeypatch.setattr(layers, "compiled", lambda: loops_numpy)
    for crossover in (0.0, 1.1):
        assert torch.equal(SpikeDriven(path, crossover=crossover)(x), right)


def test_without_numba_it_says_so():
    program = (
        "import sys, warnings; sys.modules['numba'] = None\n"
        "from trevsnn.deploy.int8.layers import compiled, set_threads\n"
        "with warnings.catch_warnings(record=True) as found: kernel = compiled()\n"
        "assert kernel.__name__.endswith('loops_numpy')\n"
        "set_threads()\n"
        "print(found[0].message)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Numba is not installed: the spike-driven engine is dense and slow")


@torch.no_grad()
def test_weights_that_all_round_up_stay_within_seven_bits(tmp_path):
    """DW1's output was up to 131, which an int8 takes for a negative number."""
    folded = fold(trained_like().float())
    for conv in convolutions(folded, "dw1"):
        conv.weight.fill_(0.51 / 127)
        conv.weight[:, :, 1, 1] = 1
    path, x = exported(folded, tmp_path)
    torch.testing.assert_close(SpikeDriven(path)(x), OnnxModel(path)(x), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_silent_channel_of_a_trained_network_keeps_its_bias(tmp_path):
    """Weights all but zero made its bias, in steps of theirs, run over 32 bits."""
    folded = fold(trained_like().float())
    for conv in convolutions(folded, "dw2"):
        assert conv.bias is not None
        conv.weight[0] = 1e-12
        conv.bias[0] = 0.3
    path, x = exported(folded, tmp_path)
    biases = [
        onnx.numpy_helper.to_array(tensor).astype(np.int64)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT32
    ]
    assert max(np.abs(bias).max() for bias in biases) == 2**30
    torch.testing.assert_close(SpikeDriven(path)(x), OnnxModel(path)(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("crossover", [0.0, 0.2, 1.1])
def test_it_is_spike_driven_below_the_crossover_and_dense_from_it_on(crossover, tmp_path, monkeypatch):
    path, x = exported(fold(trained_like().float()), tmp_path)
    engine, used = SpikeDriven(path, crossover=crossover), []
    kernel = layers.compiled()
    accumulate = kernel.accumulate
    monkeypatch.setattr(kernel, "accumulate", lambda *arrays: (used.append(1), accumulate(*arrays)))
    engine(x)
    below = sum(rate < crossover for rate in engine.rates.values())
    assert len(used) == below  # of so small maps a convolution is one part
    assert (below > 0) == (crossover > 0)
    assert (below < len(engine.rates)) == (crossover < 1)


def test_rates_are_those_of_the_network(tmp_path):
    path, x = exported(fold(trained_like().float()), tmp_path)
    engine = SpikeDriven(path)
    assert engine.rates == {}
    engine(x)
    rates = dict(engine.rates)
    engine(torch.zeros_like(x))
    assert engine.rates == rates
    assert len({round(rate, 3) for rate in rates.values()}) > 5


def test_a_processor_whose_products_run_over_computes_them_in_float32(tmp_path, monkeypatch):
    path, x = exported(fold(trained_like().float()), tmp_path)
    exact = SpikeDriven(path)(x)
    monkeypatch.setattr(integer_product, "_packed_is_exact", lambda: False)
    monkeypatch.setattr(integer_product, "_integer_is_exact", lambda: False)
    monkeypatch.setattr(torch, "_int_mm", None)
    assert torch.equal(SpikeDriven(path)(x), exact)


def test_it_leaves_pytorch_its_number_of_threads():
    """Numba's start sets the number of the OpenMP that both may use, and with it the order of PyTorch's sums."""
    program = (
        "import numpy as np, torch; from trevsnn.deploy.int8.layers import set_threads, spikes_of\n"
        "torch.set_num_threads(1)\n"
        "set_threads()\n"
        "spikes_of(np.float32(0.5), np.ones((1, 2, 2, 32), np.float32))\n"
        "assert torch.get_num_threads() == 1\n"
        "import numba; assert numba.get_num_threads() == 1"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
