"""Products of 8-bit matrices against NumPy's in 64 bits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trevsnn.deploy.int8 import product as integer_product


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
