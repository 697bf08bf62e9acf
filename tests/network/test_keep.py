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
from trevsnn.network.keep import Part, bytes_to_keep, parts_to_keep

SIZE = {"channels": (6, 8, 10), "timesteps": 3, "in_chans": 1, "encoder_stride": 1}
CODES = [
    2 * 4 * c * s * s // 4 for c, s in ((6, 8), (8, 4), (10, 4))
]  # bytes of each item, by level: two of 4C neurons, in 2 bits
PROJECTED = [4 * 2 * c * s * s for c, s in ((6, 8), (8, 4), (10, 4))]  # two maps of C channels in float32
BELOW, ABOVE = 4 * (8 + 10) * 4 * 4, 4 * (6 + 8) * 4 * 4  # the links of a timestep, the latter from the second one on
ALL = 3 * (sum(CODES) + sum(PROJECTED) + BELOW) + 2 * ABOVE


@pytest.mark.parametrize("links", ["adjacent", "all"])
@pytest.mark.parametrize("keep", ["0.001MB/item", "0.003MB/item", "0.006MB/item", "0.012MB/item", "1GB", "100%"])
def test_what_is_kept_changes_no_gradient_and_no_statistic(small_model, device, keep, links):
    plain = small_model(**SIZE, links=links, kernels="eager", slice_bytes=5000)
    other = copy.deepcopy(plain)
    object.__setattr__(other.config, "keep", keep)
    x, target = torch.randn(5, 1, 8, 8, device=device), torch.randint(5, (5,), device=device)
    ours, reference = (gradients(m, deep_supervision_loss(m(x, all_heads=True), target)) for m in (other, plain))
    assert ours.keys() == reference.keys()
    assert all(torch.equal(grad, reference[name]) for name, grad in ours.items())
    assert all(torch.equal(a, b) for a, b in zip(other.buffers(), plain.buffers(), strict=True))


#: By multiply-accumulates spared for a byte: of codes 4C, of level 1's links at first (9 * 6 * 8) / (4 * 8), of outputs of PW2 C.
ORDER = [CODES[2]] * 3 + [CODES[1]] * 3 + [CODES[0]] * 3 + [4 * 8 * 4 * 4] + [PROJECTED[2]] * 3


@pytest.mark.parametrize("parts", [0, 1, 3, 7, 9, 10, 12, 13])
def test_what_spares_most_for_its_bytes_is_kept_first_and_freed_as_it_goes(small_model, parts):
    items = 2
    fits = items * sum(ORDER[:parts])
    kept, after = kept_bytes(small_model(**SIZE, keep=f"{(fits + 1) / 1e6:.6f}MB", kernels="eager"), items)
    assert fits <= kept <= fits + 1
    assert after == 0


def test_all_there_is_can_be_kept(small_model):
    assert kept_bytes(small_model(**SIZE, keep="1GB", kernels="eager"), 2) == (2 * ALL, 0)


def kept_bytes(model, items):
    """After the forward pass and after the backward pass."""
    x = torch.randn(items, 1, 8, 8, device=next(model.parameters()).device)
    with LiveStorage([x, *model.parameters(), *model.buffers()]) as tracker:
        loss = model(x, all_heads=True)[-1].sum()
        kept = tracker.live()["kept"]
        loss.backward()
        return kept, tracker.live()["kept"]


class Count(TorchDispatchMode):
    """Counts convolutions."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.found += func.overloadpacket in (torch.ops.aten.convolution, torch.ops.aten.mkldnn_convolution)
        return func(*args, **(kwargs or {}))


def test_what_is_kept_is_not_computed_again(small_model, device):
    found = []
    for keep in (None, f"{3 * sum(CODES) / 1e6:.6f}MB/item", "1GB"):
        model = small_model(**SIZE, keep=keep, kernels="eager")
        loss = model(torch.randn(2, 1, 8, 8, device=device), all_heads=True)[-1].sum()
        with Count() as count:
            loss.backward()
        found.append(count.found)
    nothing, codes, everything = found
    # In each of 9 pieces two blocks do not run DW1 and PW1 again, but DW1 once more in the backward pass itself.
    assert nothing - codes == 9 * 2 * 2
    assert nothing - everything == 9 * 2 * 3 + 3 * 2 + 2 * 2  # nor PW2, nor links from below and from above


ROWS = st.lists(
    st.lists(st.builds(Part, st.integers(0, 3), st.sampled_from(["codes", "links"]), st.integers(1, 50), st.integers(1, 99))
             , max_size=4, unique_by=lambda part: part[:2]), min_size=1, max_size=4)  # fmt: skip


@settings(max_examples=50)
@given(ROWS, st.integers(0, 400))
def test_parts_fit_into_the_budget_and_no_better_one_would(rows, budget):
    kept = parts_to_keep(rows, budget)
    chosen = [(part, t) for t, row in enumerate(rows) for part in row if (part.level, part.name) in kept[t]]
    assert sum(part.size for part, _ in chosen) <= budget
    for t, row in enumerate(rows):
        for part in row:
            if (part, t) not in chosen:
                worth = part.spared / part.size, t
                better = sum(p.size for p, s in chosen if (p.spared / p.size, s) >= worth)
                assert part.size > budget - better
    if sum(part.size for row in rows for part in row) <= budget:
        assert len(chosen) == sum(map(len, rows))


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


@pytest.mark.parametrize("mode", ["autograd", "reversible"])
def test_keep_is_refused_where_nothing_would_be_kept(mode):
    with pytest.raises(
        ValueError, match=f"^keep is for backprop 'exact'; in '{mode}' nothing is kept by it: leave it out"
    ):
        TRevSNNConfig(keep="1GB", backprop=mode)


def test_modules_of_a_user_are_computed_again(small_model, device):
    model = small_model(**SIZE, keep="1GB", kernels="eager")
    model.levels[1].steps[2].expand1.pw1 = torch.nn.Sequential(torch.nn.Conv2d(8, 32, 1)).to(device)
    assert kept_bytes(model, 2) == (2 * 3 * (CODES[0] + PROJECTED[0]), 0)  # of the level below them, without its links


def test_a_network_is_loaded_to_keep_more_or_nothing(tmp_path):
    TRevSNN(TRevSNNConfig(channels=(4, 8), in_chans=1, num_classes=2, keep="1GB")).save_pretrained(tmp_path)
    assert TRevSNN.from_pretrained(tmp_path).config.keep == "1GB"
    assert TRevSNN.from_pretrained(tmp_path, keep=None).config.keep is None
    with pytest.raises(ValueError, match="give an amount of memory"):
        TRevSNN.from_pretrained(tmp_path, keep="much")
