"""Pictures seen row by row."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trevsnn.data.config import DataConfig
from trevsnn.data.loading import TensorDataset, real_items
from trevsnn.data.pictures.rows import Rows, as_frames, as_picture
from trevsnn.data.pictures.transforms import BatchMixup
from trevsnn.data.sets import load
from trevsnn.errors import UsageError


def test_the_rows_of_a_real_digit_come_one_after_the_other():
    """At T = S each frame is a row, at T = 1 the only one holds the columns' means, between them a few rows' means."""
    picture = real_items(DataConfig(), 1, 1)[0]
    frames = real_items(DataConfig(rows=True), 8, 1)[0]
    assert frames.shape == (8, 1, 1, 8)
    assert torch.equal(frames[:, :, 0].transpose(0, 1), picture)
    assert torch.equal(real_items(DataConfig(rows=True), 1, 1)[0, 0, 0, 0], picture[0].mean(0))
    three = real_items(DataConfig(rows=True), 3, 1)[0, :, 0, 0]
    assert torch.equal(three, torch.stack([picture[0, a:b].mean(0) for a, b in ((0, 2), (2, 5), (5, 8))]))


@given(size=st.integers(1, 40), data=st.data())
def test_every_row_is_seen_once(size, data):
    timesteps = data.draw(st.integers(1, size))
    picture = torch.randn(2, size, 3, dtype=torch.float64)
    frames = Rows(timesteps, size)(picture)
    assert frames.shape == (timesteps, 2, 1, 3)
    counts = [(t + 1) * size // timesteps - t * size // timesteps for t in range(timesteps)]
    assert max(counts) - min(counts) <= 1
    whole = sum(frame * count for frame, count in zip(frames, counts, strict=True))
    assert torch.allclose(whole[:, 0], picture.sum(1))
    assert torch.equal(as_frames(as_picture(frames[None])), frames[None])


def test_what_rows_do_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"model.timesteps is 9, .* 8 rows makes 8 frames at most: lower it to 8, or"):
        Rows(9, 8)
    with pytest.raises(ValueError, match=r"data.rows is for pictures, but n-mnist are recordings: leave it out"):
        DataConfig(name="n-mnist", rows=True)


def test_the_picture_is_augmented_before_it_is_cut_into_rows():
    options = {"crop_padding": 2, "rotation": 20.0, "erasing": 0.5, "flip": True}
    part = load(DataConfig(), "train", 8)
    whole = TensorDataset(part, DataConfig(**options), 3, timesteps=8, training=True)
    rows = TensorDataset(part, DataConfig(**options, rows=True), 3, timesteps=8, training=True)
    for i in range(12):
        assert torch.equal(rows[2, i][0], Rows(8, 8)(whole[2, i][0]))


@pytest.mark.parametrize("options", [{"mixup": 0.8}, {"cutmix": 1.0}])
def test_rows_are_mixed_as_the_pictures_are(options):
    pictures, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    mixes = [BatchMixup(DataConfig(**options, rows=rows), 3, 0.1, 5) for rows in (False, True)]
    changed = 0
    for step in range(6):
        expected, target = mixes[0](pictures, labels, step)
        mixed, same = mixes[1](as_frames(pictures), labels, step)
        assert torch.equal(mixed, as_frames(expected))
        assert torch.equal(same, target)
        changed += int(not torch.equal(expected, pictures))
    assert changed >= 4
