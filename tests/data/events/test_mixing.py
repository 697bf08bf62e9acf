"""EventMix."""

import numpy as np
import pytest
import torch

from event_files import event_config, folder_of_recordings
from trevsnn.data.config import DataConfig
from trevsnn.data.events.mixing import EventMix, random_masks
from trevsnn.data.loading import TensorDataset
from trevsnn.data.mixing import batch_mix
from trevsnn.data.pictures.transforms import BatchMixup
from trevsnn.data.sets import load

CPU = torch.device("cpu")


def test_a_mask_takes_its_share_of_the_cells_where_its_gaussians_are():
    size, share_B = (6, 20, 24), np.linspace(0, 1, 41)
    masks = random_masks(share_B, size, np.random.default_rng(0), CPU)
    assert masks.shape == (41, *size)
    cells = masks.flatten(1).sum(1).numpy()
    assert np.abs(cells - np.round(share_B * np.prod(size))).max() <= 1
    assert (cells[0], cells[-1]) == (0, np.prod(size))
    # Regions, not scattered cells: a cell's neighbours are nearly always on its side of the border.
    for axis in (1, 2, 3):
        same = masks.narrow(axis, 1, size[axis - 1] - 1) == masks.narrow(axis, 0, size[axis - 1] - 1)
        assert same.float().mean() > 0.85
    # In a tenth of the cells at most four regions: one around each mean.
    many = random_masks(np.full(300, 0.1), size, np.random.default_rng(1), CPU)
    middle = many.float().mean(0)
    assert 0.02 < float(middle.min()) < float(middle.max()) < 0.3  # anywhere in the recording
    assert abs(float(many.any(3).any(2).sum(1).float().mean()) - 3) < 1.5  # in about half of the frames


def test_a_mask_is_where_the_mixture_is_densest():
    """Against the mixture's density summed up in float64, of the same random numbers."""
    size, dice, again = (4, 9, 7), np.random.default_rng(5), np.random.default_rng(5)
    masks = random_masks(np.full(20, 0.3), size, dice, CPU).numpy()
    count = again.integers(2, 5, 20)
    weight = again.uniform(1e-9, 1, (20, 4))
    mean, spread = again.uniform(0, size, (20, 4, 3)) - 0.5, np.maximum(again.uniform(0, 0.5, (20, 4, 3)), 0.05) * size
    t, y, x = np.meshgrid(*(np.arange(n) for n in size), indexing="ij")
    for i in range(20):
        density = np.zeros(size)
        for n in range(count[i]):
            squares = sum(((a - m) / s) ** 2 for a, m, s in zip((t, y, x), mean[i, n], spread[i, n], strict=True))
            density += weight[i, n] * np.exp(-squares / 2)
        assert density[masks[i]].min() >= density[~masks[i]].max() * (1 - 1e-4)


def test_labels_are_the_shares_of_the_events_taken():
    mix = EventMix(1.0, classes=3, label_smoothing=0.0, seed=2)
    x, y = torch.poisson(torch.full((6, 4, 2, 8, 8), 0.4)), torch.tensor([0, 1, 2, 1, 2, 0])
    x += 100 * torch.arange(6).view(6, 1, 1, 1, 1) * (x > 0)  # so that a value says which recording it is from
    before = x.clone()
    mixed, target = mix(x, y, 3, 0)
    assert torch.equal(x, before)
    assert torch.allclose(target.sum(1), torch.ones(6))
    for i in range(6):
        own, other = x[i], x[5 - i]
        from_own = (mixed[i] > 0) & (mixed[i] == own)
        from_other = (mixed[i] > 0) & (mixed[i] == other)
        assert torch.equal(mixed[i] > 0, from_own | from_other)
        kept, taken = own[from_own].sum() / own.sum(), other[from_other].sum() / other.sum()
        expected = torch.zeros(3)
        expected[y[i]] += kept / (kept + taken)
        expected[y[5 - i]] += taken / (kept + taken)
        assert torch.allclose(target[i], expected, atol=1e-6)
        # The mask is the same for both polarities.
        assert not ((from_own[:, 0] & from_other[:, 1]) | (from_own[:, 1] & from_other[:, 0])).any()
    assert float((mixed != x).float().mean()) > 0.05


def test_mixing_depends_on_seed_and_key_alone():
    x, y = torch.poisson(torch.full((4, 3, 2, 8, 8), 0.5)), torch.tensor([0, 1, 2, 1])
    state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = EventMix(1.0, 3, 0.1, 5)(x, y, 7, 0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])
    same = EventMix(1.0, 3, 0.1, 5)(x, y, 7, 0)
    assert torch.equal(first[0], same[0])
    assert torch.equal(first[1], same[1])
    for seed, key in ((5, (8, 0)), (5, (7, 1)), (6, (7, 0))):
        assert not torch.equal(EventMix(1.0, 3, 0.1, seed)(x, y, *key)[0], first[0])


def test_labels_are_smoothed():
    x, y = torch.poisson(torch.full((2, 3, 2, 8, 8), 0.5)), torch.tensor([0, 1])
    plain, smooth = EventMix(1.0, 4, 0.0, 5)(x, y, 1)[1], EventMix(1.0, 4, 0.2, 5)(x, y, 1)[1]
    assert torch.allclose(smooth, 0.8 * plain + 0.2 / 4)


def test_recordings_without_events():
    mix, y = EventMix(1.0, 2, 0.0, 1), torch.tensor([0, 1])
    empty = torch.zeros(2, 2, 2, 6, 6)
    mixed, target = mix(empty, y, 0)
    assert torch.equal(mixed, empty)
    assert torch.equal(target, torch.eye(2))
    one = empty.clone()
    one[1, 0, 0, 3, 3] = 5.0
    seen = set()
    for step in range(20):
        mixed, target = mix(one, y, step)
        for i in range(2):  # the item with the event has its label; one that would lose it stays as it is
            held = bool(mixed[i].any())
            assert torch.equal(target[i], torch.eye(2)[1 if held else i])
            assert held or i == 0
        seen.add(bool(mixed[0].any()))
    assert seen == {True, False}


def test_the_config_says_how_a_batch_is_mixed():
    assert batch_mix(DataConfig(), 10, 0.1, 0) is None
    assert isinstance(batch_mix(DataConfig(mixup=0.1), 10, 0.1, 0), BatchMixup)
    assert isinstance(batch_mix(DataConfig(name="n-mnist", event_mix=0.5), 10, 0.1, 0), EventMix)
    with pytest.raises(ValueError, match=r"data.event_mix is for recordings, but digits are pictures: leave it out"):
        DataConfig(event_mix=1.0)
    with pytest.raises(
        ValueError, match=r"data.event_mix is another way to mix than data.mixup and data.cutmix: choose"
    ):
        DataConfig(name="n-mnist", event_mix=1.0, cutmix=1.0)


def test_augmented_recordings_depend_on_seed_epoch_and_index_alone(tmp_path):
    folder_of_recordings(tmp_path / "data", 5)
    config = event_config(tmp_path, rotation=15.0, shear=15.0, crop_padding=2, flip=True, erasing=0.5, event_drop=0.5)
    dataset = TensorDataset(load(config, "train", 3), config, 3, timesteps=3, training=True)
    first = [dataset[1, i][0] for i in range(6)]
    torch.manual_seed(99)
    assert all(torch.equal(dataset[1, i][0], first[i]) for i in reversed(range(6)))
    assert not any(torch.equal(dataset[2, i][0], first[i]) for i in range(6))
