import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.neurons.fire import just_above, just_below, rounded

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
