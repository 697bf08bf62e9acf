"""Weights in 8 bits, as they are stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from helpers import trained_like
from trevsnn import TRevSNN
from trevsnn.errors import RunError
from trevsnn.network.hub import save_network
from trevsnn.network.packing import pack, unpack


@given(
    arrays("float32", array_shapes(min_dims=2, max_dims=4, max_side=5), elements=st.floats(-1e3, 1e3, width=32)),
)
def test_a_weight_comes_back_within_half_a_step_of_its_channel(numbers):
    weight = torch.from_numpy(numbers)
    packed = pack({"conv.weight": weight})
    assert packed["conv.weight"].dtype == torch.int8
    steps = weight.abs().flatten(1).amax(1) / 127
    largest = (unpack(packed)["conv.weight"] - weight).abs().flatten(1).amax(1)
    assert (largest <= 0.5001 * steps + 1e-37).all()


def test_everything_else_is_kept_as_it_is():
    state = trained_like().float().state_dict()
    back = unpack(pack(state))
    assert list(back) == list(state)
    rounded = {name for name in state if not torch.equal(back[name], state[name])}
    assert rounded == {name for name, w in state.items() if name.endswith(".weight") and w.dim() == 4}
    assert unpack(state).keys() == state.keys()


def test_from_pretrained_reads_packed_weights(tmp_path):
    model = trained_like().float()
    packed = pack(model.state_dict())
    save_network(model, packed, tmp_path)
    back = TRevSNN.from_pretrained(tmp_path)
    expected = unpack(packed)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in back.state_dict().items())


def test_codes_without_their_scales_are_refused(tmp_path):
    model = trained_like().float()
    packed = pack(model.state_dict())
    name = next(name for name in packed if name.endswith(".scale"))
    for scale in (None, packed[name][:-1]):
        faulty = packed | {name: scale} if scale is not None else {k: v for k, v in packed.items() if k != name}
        save_network(model, faulty, tmp_path)
        with pytest.raises(
            RunError, match=r"model\.safetensors is missing or damaged .*no scale for each of its output"
        ):
            TRevSNN.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("scale", "has"),
    [
        (torch.tensor([1, 2], dtype=torch.int32), "no scale for each of its"),
        (torch.tensor([1.0, -2.0]), "a negative scale"),
    ],
)
def test_scales_that_no_packing_gives_are_refused(scale, has):
    with pytest.raises(ValueError, match=rf"a\.weight is in 8 bits and has {has}"):
        unpack({"a.weight": torch.ones(2, 3, dtype=torch.int8), "a.scale": scale})


def test_packed_weights_that_are_not_finite_are_refused(tmp_path):
    model = trained_like().float()
    for value in (float("nan"), float("inf")):
        model.levels[0].shared.pw2.weight.data[0, 0] = value
        save_network(model, pack(model.state_dict()), tmp_path)
        with pytest.raises(RunError, match="holds NaN or infinite numbers"):
            TRevSNN.from_pretrained(tmp_path)
