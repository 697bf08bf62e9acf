import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.neurons.fire import fire, fire_, just_above, just_below, rounded

BOUNDS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.5, 1.0, -1.0, 0.1, 1 / 3, 1.9999999999, 1e-7, -2.0]), st.floats(-100, 100)
)


@given(bound=BOUNDS, dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]))
def test_neighbours_are_those_of_torch(bound, dtype):
    number = torch.tensor(bound, dtype=dtype)
    assert rounded(bound, dtype) == number.item()
    assert just_below(bound, dtype) == number.nextafter(torch.tensor(-math.inf, dtype=dtype)).item()
    assert just_above(bound, dtype) == number.nextafter(torch.tensor(math.inf, dtype=dtype)).item()


@pytest.mark.filterwarnings("error")
@given(bound=BOUNDS)
def test_neighbours_in_float16_are_those_of_numpy(bound):
    number = np.float16(bound)
    assert rounded(bound, torch.float16) == number
    assert just_below(bound, torch.float16) == np.nextafter(number, np.float16(-np.inf))
    assert just_above(bound, torch.float16) == np.nextafter(number, np.float16(np.inf))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.1, -1 / 3, 1e-7])
@pytest.mark.parametrize("first", [0.0, math.nan])
def test_every_device_fires_at_the_same_number_and_keeps_nan(device, first, threshold, dtype):
    """Each takes its own way there; of a CPU's, only one looks for NaN."""
    edges = [just_below(threshold, dtype), rounded(threshold, dtype), just_above(threshold, dtype)]
    v = torch.tensor([first, *edges, -0.0, -1e4, 1e4, -math.inf, math.inf], dtype=dtype)
    expected = torch.where(v.isnan(), v, (v >= threshold).to(dtype))
    for spikes in (fire(v.to(device), threshold), fire_(v.to(device, copy=True), threshold)):
        assert spikes.device.type == device.type
        torch.testing.assert_close(spikes.cpu(), expected, rtol=0, atol=0, equal_nan=True)
