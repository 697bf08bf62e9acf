"""Firing rates against those of the spikes themselves."""

import pytest
import torch

from trevsnn.network.spike import spike
from trevsnn.reversible import unroll


@pytest.mark.parametrize("options", [{}, {"input": "event"}, {"input": "event", "readout": "mean"}])
def test_model_of_the_last_head_and_rates_are_those_of_the_states(small_model, device64, options):
    model = small_model(in_chans=1, **options).eval()
    x = torch.randn(2, *([4] if options else []), 1, 8, 8).to(device64)
    logits, rates = model.forward_with_rates(x)
    assert torch.equal(logits, model(x))
    assert torch.equal(logits, model.forward_heads(x)[-1])
    assert rates.states_LT.shape == (4, 4)
    *_, states = unroll(*model._recurrence(x))
    assert torch.allclose(rates.states_LT[:, -1], torch.stack([spike(s).double().mean() for s in states]))


@pytest.mark.parametrize("slice_bytes", [None, 1])
def test_rates_of_hidden_neurons_are_those_of_their_layers(small_model, device64, slice_bytes):
    """Each block's own, also where the batch is computed in slices."""
    model = small_model(in_chans=1, slice_bytes=slice_bytes).eval()
    x = torch.randn(2, 1, 8, 8).to(device64)
    spikes = {}
    for level in range(4):
        for step in range(4):
            for n in (1, 2):
                layer = model.get_submodule(f"levels.{level}.steps.{step}.expand{n}")
                keep = spikes.setdefault((level, step, n - 1), [])
                layer.register_forward_hook(lambda _, inputs, out, keep=keep: keep.append(out.double()))
    _, rates = model.forward_with_rates(x)
    assert rates.hidden_LTN.shape == (4, 4, 2)
    for place, parts in spikes.items():
        assert len(parts) == (1 if slice_bytes is None else 2)
        assert float(rates.hidden_LTN[place]) == pytest.approx(float(torch.cat(parts).mean()))
    assert rates.hidden_LTN.unique().numel() > 8
    states, first, second = zip(*rates.by_level(), strict=True)
    assert (*states, *first, *second) == pytest.approx(
        [*rates.states_LT.mean(1).tolist(), *rates.hidden_LTN.mean(1).T.flatten().tolist()]
    )
