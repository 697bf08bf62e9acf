"""The spike-driven engine against the dense folded network."""

import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from test_folded import example, trained_like
from trevsnn.deploy.folded import fires, fold
from trevsnn.deploy.spike_driven import SpikeDrivenConv, spike_driven


@settings(max_examples=30)
@given(
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    size=st.tuples(st.integers(1, 3), st.integers(3, 7), st.integers(3, 7)),
    rate=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    last=st.booleans(),
)
def test_it_is_the_convolution_of_the_spikes(channels, kernel, stride, size, rate, last):
    conv = nn.Conv2d(*channels, kernel, stride, kernel // 2, bias=last).double()
    batch, height, width = size
    active = torch.rand(batch, channels[0], height, width) < rate
    potential = torch.where(active, 0.5, -0.25).double()  # the threshold itself fires
    if last:
        potential = potential.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected = conv(fires(potential))
    torch.testing.assert_close(SpikeDrivenConv(conv)(potential), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"input": "event", "timesteps": 3}, {"encoding": "grouped"}])
@pytest.mark.parametrize("crossover", [0.0, 0.3, 1.1])
def test_the_engine_gives_the_logits_of_the_folded_network(options, crossover):
    model = trained_like(**options)
    folded, x = fold(model), example(model.config)
    engine, rates = spike_driven(folded, x, crossover)
    replaced = {name for name, module in engine.named_modules() if isinstance(module, SpikeDrivenConv)}
    assert replaced == {name for name, rate in rates.items() if rate < crossover}
    assert crossover == 0.3 or len(replaced) == (0 if crossover == 0 else len(rates))
    assert {name.rpartition(".")[2] for name in rates} == {"pw2", "below", "above"}
    torch.testing.assert_close(engine(x), folded(x), rtol=1e-12, atol=1e-12)
    single = fold(model.float())
    torch.testing.assert_close(
        spike_driven(single, x.float(), crossover)[0](x.float()), single(x.float()), rtol=1e-4, atol=1e-4
    )


def test_it_leaves_pytorch_its_number_of_threads():
    """Numba's start sets the number of the OpenMP that both may use, and with it the order of PyTorch's sums."""
    program = (
        "import torch; from trevsnn.deploy.spike_driven import SpikeDrivenConv\n"
        "torch.set_num_threads(1)\n"
        "SpikeDrivenConv(torch.nn.Conv2d(4, 4, 1))(torch.ones(1, 4, 2, 2))\n"
        "assert torch.get_num_threads() == 1"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
