"""Frames one at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import example, trained_like
from trevsnn import TRevSNN, TRevSNNConfig


@settings(max_examples=10)
@given(
    timesteps=st.integers(1, 5),
    batch=st.integers(1, 4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    options=st.sampled_from([{}, {"links": "all"}, {"links": "all", "alphas": "one"}]),
    readout=st.sampled_from(["last", "mean"]),
    slope=st.sampled_from([1.0, 0.3]),
)
def test_a_stream_gives_the_logits_of_the_clip_bit_for_bit(device64, timesteps, batch, dtype, options, readout, slope):
    model = trained_like(slope, input="event", timesteps=timesteps, readout=readout, **options).to(device64, dtype)
    clip = example(model.config, batch).to(device64, dtype)
    with torch.no_grad():
        wanted, whole = model.forward_time(clip), model(clip)
    stream = model.stream(batch)
    sizes = []
    for step, frame in enumerate(clip.unbind(1)):
        assert len(stream) == timesteps - step
        logits = stream.step(frame)
        if readout == "last":
            assert torch.equal(logits, wanted[step])
        else:
            torch.testing.assert_close(logits, wanted[: step + 1].mean(0))
        sizes.append(stream.state_bytes)
    assert torch.equal(logits, whole)
    elements = batch * (6 * 12**2 + 8 * 6**2 + 10 * 6**2)
    assert sizes == [elements * clip.element_size()] * timesteps


def test_what_a_stream_refuses():
    model = trained_like(input="event")
    stream = model.stream(2)
    with pytest.raises(ValueError, match=r"the frame has shape \(1, 2, 12, 12\); this stream takes \(2, 2, 'H', 'W'\)"):
        stream.step(torch.zeros(1, 2, 12, 12))
    frame = torch.zeros(2, 2, 12, 12, dtype=torch.float64)
    with pytest.raises(ValueError, match="frame 0 holds NaN"):
        stream.step(frame * torch.nan)
    with pytest.raises(ValueError, match=r"frame 0 has dtype torch\.uint8; convert it to floating point first"):
        stream.step(frame.to(torch.uint8))
    stream.step(frame)
    with pytest.raises(ValueError, match=r"frame 1 has shape \(2, 2, 12, 11\), the first had \(2, 2, 12, 12\)"):
        stream.step(frame[..., 1:])
    stream.step(frame)
    with pytest.raises(ValueError, match=r"had its 2 frames: begin another with model.stream\(batch\)"):
        stream.step(frame)
    with pytest.raises(ValueError, match="evaluation mode"):
        model.train().stream(1)
    with pytest.raises(ValueError, match="input='event'"):
        TRevSNN(TRevSNNConfig(channels=(4, 8))).eval().stream(1)
    with pytest.raises(ValueError, match="batch is 0"):
        model.eval().stream(0)
