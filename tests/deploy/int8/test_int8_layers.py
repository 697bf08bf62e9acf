"""The convolutions of the spike-driven engine against PyTorch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import conv2d

from trevsnn.deploy.int8 import product as integer_product
from trevsnn.deploy.int8.layers import Hidden, IntegerConv, IntegerDepthwise, QLinearConv
from trevsnn.deploy.int8.maps import dequantise, pad_to_lanes


def constants(generator, outputs, inputs, kernel, x_zero, y_zero):
    """A QLinearConv with random weights, scales that spread codes over their range, and biases."""
    weight = generator.integers(-127, 128, (outputs, inputs, kernel, kernel)).astype(np.int8)
    scale = generator.uniform(0.001, 0.05, outputs).astype(np.float32)
    bias = generator.integers(-2000, 2000, outputs).astype(np.int32)
    one, zeros = np.float32(1), np.zeros(outputs, np.int8)
    return QLinearConv(one, np.uint8(x_zero), weight, scale, zeros, one, np.uint8(y_zero), bias)


def expected(codes_BHWC, parts, groups=1, **options):
    """The codes by PyTorch's convolution in float64, whose sums are exact, and ONNX's rule for rounding."""
    x = torch.from_numpy(codes_BHWC.astype(np.float64) - float(parts.x_zero)).movedim(-1, 1)
    weight = torch.from_numpy(parts.weight.astype(np.float64))
    sums = conv2d(x, weight, groups=groups, **options).movedim(1, -1).numpy()
    numbers = np.rint((sums + parts.bias).astype(np.float32) * parts.weight_scale)
    return np.clip(numbers + float(parts.y_zero), 0, 255).astype(np.uint8)


def assert_padded(found, right, value):
    """A map is right, and its channels are padded with one value to a multiple of 32."""
    channels = right.shape[-1]
    assert np.array_equal(found[..., :channels], right)
    assert found.shape == (*right.shape[:-1], -(-channels // 32) * 32)
    assert (found[..., channels:] == value).all()


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
    found = conv(pad_to_lanes(spikes))
    assert_padded(found, expected(spikes, parts, stride=stride, padding=padding), 128)
    assert conv.rate is not None
    assert 0 <= conv.rate <= 1
    assert kernel > 1 or stride > 1 or conv.rate == pytest.approx(spikes.mean())
    assert np.array_equal(conv(pad_to_lanes(spikes)), found)  # by the rate of the first call


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
    assert_padded(conv(codes), expected(codes, parts, stride=stride, padding=kernel // 2), 128)
    assert conv.rate is None


def test_columns_of_large_maps_come_in_parts():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 256, (2, 90, 101, 60)).astype(np.uint8)
    parts = constants(generator, 5, 60, 3, 128, 128)
    conv = IntegerConv(parts, {"strides": [1, 1], "pads": [1] * 4}, 0.0)
    padded = pad_to_lanes(codes, value=128)
    assert len(list(conv.columns(padded, conv.output_size(padded)))) > 4
    assert_padded(conv(padded), expected(codes, parts, padding=1), 128)


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
    potential = pad_to_lanes(generator.normal(size=(*size, channels)).astype(np.float32))
    potential[0, 0, 0, 0] = threshold
    parts = constants(generator, channels, 1, kernel, 0, 0)
    spikes = (potential[..., :channels] >= threshold).astype(np.uint8)
    given_codes = IntegerDepthwise(parts).of_spikes(threshold, potential)
    assert_padded(given_codes, expected(spikes, parts, channels, padding=kernel // 2), 0)

    parts = constants(generator, channels, 1, kernel, 128, 128)
    codes = generator.integers(0, 256, (*size, channels)).astype(np.uint8)
    step, alpha = np.float32(0.013), pad_to_lanes(generator.normal(size=channels).astype(np.float32))
    previous = pad_to_lanes(generator.normal(size=(*size, channels)).astype(np.float32))
    added = (expected(codes, parts, channels, padding=kernel // 2).astype(np.float32) - np.float32(128)) * step
    conv, padded = IntegerDepthwise(parts), pad_to_lanes(codes, value=128)
    state = potential[..., :channels] + added
    assert_padded(conv.added(step, None, potential, padded), state, 0)
    assert_padded(
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
    found = dequantise(7, step, times, wanted if cut else None, *potential, codes)
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
    first = first._replace(weight_scale=np.full(hidden, scale, np.float32))
    second = constants(generator, inputs, hidden, 1, 0, 128)
    plain = {"strides": [1, 1], "pads": [0] * 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(integer_product, "PACKED", 0 if arranged else 2**40)
        expand = IntegerConv(first, plain, crossover, firing=True)
        project = IntegerConv(second, plain, crossover, spiking=True)
    neurons = expand(pad_to_lanes(maps))
    assert isinstance(neurons, Hidden)
    codes = expected(maps, first)
    assert expand.threshold is not None
    spikes = np.concatenate([part > expand.threshold for _, part in neurons.parts()])
    assert np.array_equal(spikes[:, :hidden].reshape(codes.shape), codes >= 1)
    assert not spikes[:, hidden:].any()
    assert_padded(project(neurons), expected((codes >= 1).astype(np.uint8), second), 128)
    assert project.rate == pytest.approx((codes >= 1).mean())


def test_sums_of_many_rows_of_the_largest_weights_do_not_run_over():
    """More than 256 rows of 127 are more than 16 bits hold."""
    parts = constants(np.random.default_rng(0), 3, 1500, 1, 0, 0)
    parts = parts._replace(
        weight=np.stack([np.full((1500, 1, 1), value, np.int8) for value in (127, -127, 1)]),
        weight_scale=np.float32([255 / (127 * 1500), 255 / (127 * 1500), 0.1]), bias=np.zeros(3, np.int32),
    )  # fmt: skip
    conv = IntegerConv(parts, {"strides": [1, 1], "pads": [0] * 4}, 1.1, spiking=True)
    assert_padded(conv(pad_to_lanes(np.ones((1, 1, 2, 1500), np.uint8))), np.uint8([[[[255, 0, 150]] * 2]]), 0)


def test_what_does_not_fit_together_is_refused_before_a_loop_reads_it():
    generator = np.random.default_rng(0)
    sound = constants(generator, 32, 1, 3, 0, 128)
    changes = {
        "bias": np.zeros(100_000, np.int32), "weight_scale": np.zeros(1, np.float32), "weight": sound.weight.astype(np.float64),
        "weight_zero": np.ones(32, np.int8), "y_scale": np.ones(32, np.float32), "x_zero": np.float32(0),
    }  # fmt: skip
    for name, value in changes.items():
        with pytest.raises(ValueError, match=r"of a convolution|zero points"):
            IntegerDepthwise(sound._replace(**{name: value}))
    for weight in (
        np.zeros((32, 1, 3, 51), np.int8),
        np.zeros((32, 2, 3, 3), np.int8),
        np.zeros((32, 1, 2, 2), np.int8),
    ):
        with pytest.raises(ValueError, match="the weight of a depthwise convolution"):
            IntegerDepthwise(sound._replace(weight=weight))
    for options in ({"strides": [0, 1], "pads": [0] * 4}, {"strides": [1, 1], "pads": [-3, 0, 0, 0]}):
        with pytest.raises(ValueError, match=r"strides .* and padding"):
            IntegerConv(sound, options, 0.2)
    depthwise = IntegerDepthwise(sound)
    codes, potential = np.zeros((1, 4, 4, 32), np.uint8), np.zeros((1, 4, 4, 32), np.float32)
    one, alpha = np.float32(1), np.ones(32, np.float32)
    assert depthwise.added(one, alpha, potential, codes).shape == (1, 4, 4, 32)
    for wrong in ((potential[:, :1], codes), (potential, codes, potential[:, :1]), (potential, codes[..., :1])):
        with pytest.raises(ValueError, match=r"states are not|a map is"):
            depthwise.added(one, alpha, *wrong)
    with pytest.raises(ValueError, match="a map is"):
        depthwise.of_spikes(one, np.zeros((1, 4, 4, 64), np.float32))
    conv = IntegerConv(constants(generator, 32, 32, 1, 0, 128), {"strides": [1, 1], "pads": [0] * 4}, 0.2)
    with pytest.raises(ValueError, match="a map is"):
        conv(np.zeros((1, 4, 4, 64), np.uint8))
    for arguments in (
        (2, (9, 8), codes),
        (-1, None, codes),
        (1, None, potential[:, :1], codes),
        (1, None, codes[..., :1]),
    ):
        with pytest.raises(ValueError, match=r"times as large|a potential is|a map is"):
            dequantise(0, one, *arguments)
