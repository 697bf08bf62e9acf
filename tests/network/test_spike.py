import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.network.spike import pack, pull_back, spike, spikes_of

EDGES = [-1.0, -1e-30, -0.0, 0.0, 1e-30, 0.49999997, 0.5, 0.50000006, 1.0, 1.0000001, 3.0, math.inf, -math.inf]


def test_spike_and_surrogate_at_every_edge(device):
    v = torch.tensor(EDGES, device=device, requires_grad=True)
    s = spike(v)
    assert s.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0]
    s.sum().backward()
    assert v.grad is not None
    assert v.grad.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0]


@given(
    values=st.lists(st.sampled_from(EDGES), min_size=1, max_size=40),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)
def test_decoded_state_has_the_spikes_and_surrogate_of_the_state(device64, values, dtype):
    state = torch.tensor(values, dtype=dtype, device=device64)
    packed = pack(state)
    assert packed.bits.nbytes == -(-len(values) // 4)
    decoded = packed.decode()
    assert decoded.dtype == dtype
    for v in (state.requires_grad_(), decoded.requires_grad_()):
        spike(v).sum().backward()
    assert torch.equal(spike(state), spike(decoded))
    assert torch.equal(state.grad, decoded.grad)
    assert torch.equal(packed.spikes(torch.float32), spike(state).float())
    assert torch.equal(packed.window(torch.float64), decoded.grad.double())


def test_a_state_and_its_code_are_seen_alike(device):
    state, gradient = torch.tensor([EDGES, EDGES], device=device), torch.arange(26.0, device=device).view(2, 13)
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(spikes_of(pack(state), dtype), spikes_of(state, dtype))
        assert spikes_of(state, dtype).dtype == dtype
        assert torch.equal(pull_back(pack(state), gradient.to(dtype)), pull_back(state, gradient.to(dtype)))


@given(
    shape=st.tuples(*[st.integers(1, 5)] * 4),
    channels_last=st.booleans(),
)
def test_decoded_state_keeps_shape_and_layout(device, shape, channels_last):
    state = torch.randn(shape, device=device)
    if channels_last:
        state = state.contiguous(memory_format=torch.channels_last)
    decoded = pack(state).decode()
    assert decoded.shape == state.shape
    assert torch.equal(spike(decoded), spike(state))
    assert decoded.is_contiguous(memory_format=torch.channels_last) or not channels_last
    assert decoded.is_contiguous() == state.is_contiguous()


def test_rows_of_codes_are_the_codes_of_rows(device):
    state = torch.randn(5, 3, 4, 7, device=device).contiguous(memory_format=torch.channels_last)
    packed = pack(state)
    assert packed.bits.nbytes == 5 * 21
    assert torch.equal(packed[1:4].decode(), pack(state[1:4]).decode())
    assert torch.equal(packed[4:].spikes(torch.float32), spike(state[4:]))


def test_a_large_state_is_packed_in_parts(device):
    state = torch.randn(3, 2**20 + 4, device=device)
    assert torch.equal(spike(pack(state).decode()), spike(state))


def test_state_of_any_dimension(device):
    state = torch.randn(3, 7, device=device)
    assert torch.equal(spike(pack(state).decode()), spike(state))
