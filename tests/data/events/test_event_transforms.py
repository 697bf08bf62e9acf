"""Augmentation of event frames."""

import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from event_files import some_events
from trevsnn.data.config import DataConfig
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.transforms import EventDrop, frames_transform
from trevsnn.data.geometry import rotation_and_shear


def test_event_augmentation_moves_all_frames_of_a_recording_alike():
    config = DataConfig(name="recordings", image_size=16, flip=True, crop_padding=2, rotation=20.0, shear=20.0)
    counts = bin_events(some_events(2000), 1, 16, (34, 34), "count").repeat(3, axis=0)
    plain = frames_transform(config, training=False)(counts)
    assert torch.equal(plain[0], plain[2])
    assert plain[plain > 0].mean() == pytest.approx(1, rel=1e-6)
    torch.manual_seed(0)
    changed = [frames_transform(config, training=True)(counts) for _ in range(8)]
    assert all(torch.equal(frames[0], frames[2]) for frames in changed)
    assert sum(not torch.equal(frames, plain) for frames in changed) >= 7


@pytest.fixture
def frames():
    """Three frames that are the same, of 16 x 16."""
    return torch.poisson(torch.full((1, 2, 16, 16), 0.7)).repeat(3, 1, 1, 1)


def changed_by(frames, **options):
    (transform,) = rotation_and_shear(DataConfig(name="recordings", **options), InterpolationMode.NEAREST)
    return transform(frames)


def test_no_rotation_and_no_shear_is_no_transform():
    assert rotation_and_shear(DataConfig(), InterpolationMode.NEAREST) == []


@pytest.mark.parametrize("turns", [0, 1, 2, -1])
def test_rotations_by_quarters_are_exact(frames, turns):
    transform = v2.RandomRotation([90.0 * turns, 90.0 * turns], InterpolationMode.NEAREST)
    assert torch.equal(transform(frames), torch.rot90(frames, turns, (2, 3)))


def test_rotation_and_shear_change_all_frames_alike_and_make_no_new_counts(frames):
    for options in ({"rotation": 30.0}, {"shear": 30.0}):
        torch.manual_seed(0)
        changed = 0
        for _ in range(10):
            out = changed_by(frames, **options)
            changed += not torch.equal(out, frames)
            assert torch.equal(out[0], out[2])
            assert set(out.unique().tolist()) <= set(frames.unique().tolist()) | {0.0}
            assert 0.6 < float(out.sum() / frames.sum()) < 1.3
        assert changed >= 6


def test_shear_moves_along_x_by_the_distance_from_the_middle():
    """By tan(angle) times the distance of the row from the middle, up to ``shear`` degrees in both directions."""
    frames = torch.zeros(2, 2, 33, 33)
    frames[:, :, 4, 16], frames[:, :, 16, 16] = 1, 2  # 12 rows above the middle, and in it
    torch.manual_seed(0)
    moved = []
    for _ in range(60):
        out = changed_by(frames, shear=45.0)
        assert torch.equal(out[0], out[1])
        assert out[0, 0, 16, 16] == 2
        (place,) = out[0, 0, 4].nonzero().flatten().tolist()
        moved.append(place - 16)
    assert min(moved) in (-12, -11)
    assert max(moved) in (11, 12)
    whole = v2.functional.affine(frames, 0, [0, 0], 1.0, [45.0, 0.0])
    assert whole[0, 0, 4, 28] == 1


def test_event_drop_takes_at_most_half_and_adds_nothing():
    torch.manual_seed(0)
    frames = torch.ones(8, 2, 20, 20)
    drop = EventDrop(1.0)
    kept = torch.stack([drop(frames) for _ in range(200)]).flatten(1).mean(1)
    assert 0.45 < float(kept.min()) < 0.6  # up to a half, but for rounding
    assert float(kept.max()) <= 1
    assert torch.equal(EventDrop(0.0)(frames), frames)
    assert {float(v) for v in torch.unique(drop(frames))} <= {0.0, 1.0}
