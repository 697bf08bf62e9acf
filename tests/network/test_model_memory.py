"""What a forward pass keeps for the backward pass, in bytes."""

import gc
import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all storages made under it that are still alive, other than those of ``known`` tensors."""

    def __init__(self, known):
        super().__init__()
        self.alive = {}
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self.known:
                    self.alive[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        return out

    def total(self):
        gc.collect()
        return sum(nbytes for ref, nbytes in self.alive.values() if ref() is not None)


def live_after_forward(model, x):
    with LiveBytes([x, *model.parameters(), *model.buffers()]) as tracker:
        heads = model.forward_heads(x)
        return tracker.total(), heads


@pytest.mark.parametrize("encoding", ["shared", "grouped", "last", "mean"])
@pytest.mark.parametrize("mode", ["reversible", "exact", "autograd"])
def test_live_bytes_after_the_forward_pass(small_model, device, mode, encoding):
    event = encoding in ("last", "mean")
    totals, elements = {}, 0
    for timesteps in (2, 3, 5):
        options = {"input": "event", "readout": encoding} if event else {"encoding": encoding}
        # Alphas of 1 need no float anchors, which count apart.
        model = small_model(timesteps=timesteps, alpha=1.0, backprop=mode, **options)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "alphas" in name:
                    parameter.fill_(1.0)
        shape = (4, timesteps, 2, 16, 16) if event else (4, 3, 16, 16)
        totals[timesteps], heads = live_after_forward(model, torch.randn(shape, device=device))
        elements = 4 * (4 * 16**2 + 8 * 8**2 + 8 * 4**2 + 12 * 4**2)
        assert len(heads) == (1 if event else 4)
    for few, many in ((2, 3), (3, 5)):
        slope = (totals[many] - totals[few]) / (many - few)
        # Kept whatever the batch: mean and variance of each link, the channels of what they lead to, and bounded alphas.
        channels = 2 * 4 * (8 + 8 + 12 + 4 + 8 + 8) + 4 * (4 + 8 + 8 + 12)
        if encoding == "mean":  # rates, hidden values, and the head's two weights as standardised; no state
            channels += 4 * (4 * 12 + 4 * 5 + 5 * (12 + 3) + 5 * (5 + 3))
        if mode == "reversible":
            assert slope == channels
        elif mode == "exact":
            assert 8 * (slope - channels) / elements == 2
        else:
            assert slope > 4 * elements  # the plain graph keeps many floats an element: the tracker does see
