"""Memory that is left over spares the backward pass work, and changes no bit."""

import copy

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode

from conftest import gradients
from trevsnn import TRevSNN, TRevSNNConfig, deep_supervision_loss
from trevsnn.measure.tracker import LiveStorage
from trevsnn.network.keep import bytes_to_keep, pieces_to_keep

#: Bytes of a piece of each item: two codes of 4C neurons, two maps of C channels in float32; of C, H, W of each level.
PIECES = [2 * (-(-4 * c * s * s // 4) + 4 * c * s * s) for c, s in ((6, 8), (8, 4), (10, 4))]
SIZE = {"channels": (6, 8, 10), "timesteps": 3, "in_chans": 1, "encoder_stride": 1}


@pytest.mark.parametrize("links", ["adjacent", "all"])
@pytest.mark.parametrize("keep", ["0.001MB/item", "0.006MB/item", "1GB", "100%"])
def test_what_is_kept_changes_no_gradient_and_no_statistic(small_model, device, keep, links):
    plain = small_model(**SIZE, links=links, kernels="eager", slice_bytes=5000)
    other = copy.deepcopy(plain)
    object.__setattr__(other.config, "keep", keep)
    x, target = torch.randn(5, 1, 8, 8, device=device), torch.randint(5, (5,), device=device)
    ours, reference = (gradients(m, deep_supervision_loss(m(x, all_heads=True), target)) for m in (other, plain))
    assert ours.keys() == reference.keys()
    assert all(torch.equal(grad, reference[name]) for name, grad in ours.items())
    assert all(torch.equal(a, b) for a, b in zip(other.buffers(), plain.buffers(), strict=True))


@pytest.mark.parametrize("pieces", [0, 1, 2, 3, 4, 9])
def test_as_many_pieces_are_kept_as_fit_and_freed_as_it_goes(small_model, pieces):
    order = PIECES[::-1] * 3  # the last level of the last timestep first
    items = 2
    fits = items * sum(order[:pieces])
    assert fits < 1e6
    model = small_model(**SIZE, keep=f"{(fits + 1) / 1e6:.6f}MB")
    x = torch.randn(items, 1, 8, 8)
    with LiveStorage([x, *model.parameters(), *model.buffers()]) as tracker:
        loss = model(x, all_heads=True)[-1].sum()
        kept = tracker.live()["kept"]
        loss.backward()
        after = tracker.live()["kept"]
    # Smaller pieces of earlier levels may fit into what is left.
    assert fits <= kept <= fits + 1
    assert after == 0


class Count(TorchDispatchMode):
    """Counts convolutions."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.mkldnn_convolution)
        return func(*args, **(kwargs or {}))


def test_what_is_kept_is_not_computed_again(small_model):
    found = []
    for keep in (None, "1GB"):
        model = small_model(**SIZE, keep=keep)
        loss = model(torch.randn(2, 1, 8, 8), all_heads=True)[-1].sum()
        with Count() as count:
            loss.backward()
        found.append(count.found)
    # In each of 9 pieces two blocks do not run DW1, PW1 and PW2 again; DW1 the backward pass runs once more by itself.
    assert found[0] - found[1] == 9 * 2 * 3


@settings(max_examples=50)
@given(
    st.lists(st.one_of(st.none(), st.integers(1, 50)), min_size=1, max_size=5), st.integers(1, 6), st.integers(0, 400)
)
def test_pieces_fit_into_the_budget_and_no_later_one_would(sizes, timesteps, budget):
    kept = pieces_to_keep(sizes, timesteps, budget)
    left = budget - sum(sizes[level] for _, level in kept)
    assert left >= 0
    for t in range(timesteps):
        for level, size in enumerate(sizes):
            if size is not None and (t, level) not in kept:
                assert size > left + sum(sizes[k] for s, k in kept if (s, k) < (t, level))  # those came after it
    if all(size is not None for size in sizes) and budget >= timesteps * sum(sizes):
        assert len(kept) == timesteps * len(sizes)


def test_amounts_of_memory_are_read():
    cpu = torch.device("cpu")
    assert bytes_to_keep("4GB", 7, cpu) == 4_000_000_000
    assert bytes_to_keep("1.5 GiB", 7, cpu) == 3 * 2**29
    assert bytes_to_keep("12MB/item", 7, cpu) == 84_000_000
    assert 0.499 < bytes_to_keep("50%", 1, cpu) / bytes_to_keep("100%", 1, cpu) < 0.501


@pytest.mark.parametrize("keep", ["4", "4 gb", "-1GB", "120%", "30%/item", "GB", 4, ""])
def test_what_is_no_amount_of_memory_is_refused(keep):
    with pytest.raises(ValueError, match=r"^keep is .*; give an amount of memory, '4GB'"):
        TRevSNNConfig(keep=keep)


def test_modules_of_a_user_are_computed_again(small_model):
    model = small_model(**SIZE, keep="1GB")
    model.levels[1].steps[2].expand1.pw1 = torch.nn.Sequential(torch.nn.Conv2d(8, 32, 1))
    x = torch.randn(2, 1, 8, 8)
    with LiveStorage([x, *model.parameters(), *model.buffers()]) as tracker:
        loss = model(x, all_heads=True)[-1].sum()
        kept = tracker.live()["kept"]
        loss.backward()
    assert kept == 2 * 3 * PIECES[0]  # of the level below them


def test_a_network_is_loaded_to_keep_more_or_nothing(tmp_path):
    TRevSNN(TRevSNNConfig(channels=(4, 8), in_chans=1, num_classes=2, keep="1GB")).save_pretrained(tmp_path)
    assert TRevSNN.from_pretrained(tmp_path).config.keep == "1GB"
    assert TRevSNN.from_pretrained(tmp_path, keep=None).config.keep is None
    with pytest.raises(ValueError, match="give an amount of memory"):
        TRevSNN.from_pretrained(tmp_path, keep="much")
