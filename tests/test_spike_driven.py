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

from test_folded import example, trained_like
from trevsnn.deploy import integer_layers
from trevsnn.deploy.folded import fold
from trevsnn.deploy.integer import export_integer
from trevsnn.deploy.integer_layers import Hidden, IntegerConv, IntegerDepthwise
from trevsnn.deploy.onnx_model import OnnxModel
from trevsnn.deploy.spike_driven import SpikeDriven

VARIANTS = [{}, {"input": "event", "timesteps": 3}, {"encoding": "grouped"}, {"encoder_stride": 2}]


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


def exported(folded, folder):
    """The 8-bit file of a network, and inputs that it was calibrated on."""
    x = example(folded.config, batch=4).float()
    export_integer(folded, x, folder / "model.onnx")
    return folder / "model.onnx", x


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 140), st.integers(1, 140)),
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
    conv = IntegerConv(
        parts, {"strides": [stride] * 2, "pads": [padding] * 4}, crossover, spiking=True, firing=False
    )  # fmt: skip
    found = conv(torch.from_numpy(spikes))
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), expected(spikes, parts, stride=stride, padding=padding))
    assert conv.rate is not None
    assert 0 <= conv.rate <= 1
    assert kernel > 1 or stride > 1 or conv.rate == pytest.approx(spikes.mean())
    assert torch.equal(conv(torch.from_numpy(spikes)), found)  # by the rate of the first call


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.integers(1, 70),
    size=st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    spiking=st.booleans(),
)
def test_a_depthwise_convolution(seed, channels, size, spiking):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 2 if spiking else 256, (*size, channels)).astype(np.uint8)
    parts = constants(generator, channels, 1, 3, 0 if spiking else 128, 0 if spiking else 128)
    found = IntegerDepthwise(parts, spiking=spiking)(torch.from_numpy(codes))
    assert np.array_equal(found.numpy(), expected(codes, parts, groups=channels, padding=1))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    channels=st.tuples(st.integers(1, 70), st.integers(1, 140)),
    pixels=st.sampled_from([1, 5, 700]),
    scale=st.sampled_from([1e-6, 0.5, 0.03125, 0.0041, 3.0]),  # with 0.5 and 0.03125 sums come to half a step
    crossover=st.sampled_from([0.0, 1.1]),
)
def test_hidden_neurons_fire_where_their_code_is_one_or_more(seed, channels, pixels, scale, crossover):
    generator = np.random.default_rng(seed)
    inputs, hidden = channels
    numbers = generator.integers(0, 128, (1, 1, pixels, inputs)).astype(np.uint8)
    first = constants(generator, hidden, inputs, 1, 0, 0)
    first[3] = np.full(hidden, scale, np.float32)
    second = constants(generator, inputs, hidden, 1, 0, 128)
    plain = {"strides": [1, 1], "pads": [0] * 4}
    neurons = IntegerConv(first, plain, crossover, spiking=False, firing=True)(torch.from_numpy(numbers))
    assert isinstance(neurons, Hidden)
    codes = expected(numbers, first)
    spikes = torch.cat([part > neurons.threshold for part in neurons.parts()]).numpy()
    assert np.array_equal(spikes[:, :hidden].reshape(codes.shape), codes >= 1)
    assert not spikes[:, hidden:].any()
    project = IntegerConv(second, plain, crossover, spiking=True, firing=False)
    given = project(neurons)
    assert isinstance(given, torch.Tensor)
    assert np.array_equal(given.numpy(), expected((codes >= 1).astype(np.uint8), second))
    assert project.rate == pytest.approx((codes >= 1).mean())


def test_sums_of_many_rows_of_the_largest_weights_do_not_run_over():
    """More than 256 rows of 127 are more than 16 bits hold."""
    parts = constants(np.random.default_rng(0), 3, 1500, 1, 0, 0)
    parts[2] = np.stack([np.full((1500, 1, 1), value, np.int8) for value in (127, -127, 1)])
    parts[3], parts[7] = np.float32([255 / (127 * 1500), 255 / (127 * 1500), 0.1]), np.zeros(3, np.int32)
    conv = IntegerConv(parts, {"strides": [1, 1], "pads": [0] * 4}, 1.1, spiking=True, firing=False)
    found = conv(torch.ones(1, 1, 2, 1500, dtype=torch.uint8))
    assert isinstance(found, torch.Tensor)
    assert found.flatten(0, 2).tolist() == [[255, 0, 150]] * 2


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


@torch.no_grad()
def test_weights_that_all_round_up_stay_within_seven_bits(tmp_path):
    """DW1's output was up to 131, which an int8 takes for a negative number."""
    folded = fold(trained_like().float())
    for name, module in folded.named_modules():
        if name.endswith("dw1"):
            assert isinstance(module, torch.nn.Conv2d)
            module.weight.fill_(0.51 / 127)
            module.weight[:, :, 1, 1] = 1
    path, x = exported(folded, tmp_path)
    torch.testing.assert_close(SpikeDriven(path)(x), OnnxModel(path)(x), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_silent_channel_of_a_trained_network_keeps_its_bias(tmp_path):
    """Weights all but zero made its bias, in steps of theirs, run over 32 bits."""
    folded = fold(trained_like().float())
    for name, module in folded.named_modules():
        if name.endswith("dw2"):
            assert isinstance(module, torch.nn.Conv2d)
            assert module.bias is not None
            module.weight[0] = 1e-12
            module.bias[0] = 0.3
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
    kernel = integer_layers.compiled()
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
    monkeypatch.setattr(integer_layers, "_integer_product_is_exact", lambda: False)
    monkeypatch.setattr(torch, "_int_mm", None)
    assert torch.equal(SpikeDriven(path)(x), exact)


def test_it_leaves_pytorch_its_number_of_threads():
    """Numba's start sets the number of the OpenMP that both may use, and with it the order of PyTorch's sums."""
    program = (
        "import torch; from trevsnn.deploy.integer_layers import fires, set_threads\n"
        "torch.set_num_threads(1)\n"
        "set_threads()\n"
        "fires(torch.ones(1, 2, 2, 4), 0.5)\n"
        "assert torch.get_num_threads() == 1\n"
        "import numba; assert numba.get_num_threads() == 1"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
