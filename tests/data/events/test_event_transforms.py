"""Augmentation of event frames."""

import pytest
import torch

from event_files import some_events
from trevsnn.data.config import DataConfig
from trevsnn.data.events.frames import bin_events
from trevsnn.data.events.transforms import EventDrop, frames_transform


def test_event_augmentation_moves_all_frames_of_a_recording_alike():
    config = DataConfig(name="recordings", image_size=16, flip=True, crop_padding=2)
    counts = bin_events(some_events(2000), 1, 16, (34, 34), "count").repeat(3, axis=0)
    plain = frames_transform(config, training=False)(counts)
    assert torch.equal(plain[0], plain[2])
    assert plain[plain > 0].mean() == pytest.approx(1, rel=1e-6)
    torch.manual_seed(0)
    changed = [frames_transform(config, training=True)(counts) for _ in range(8)]
    assert all(torch.equal(frames[0], frames[2]) for frames in changed)
    assert sum(not torch.equal(frames, plain) for frames in changed) >= 7


def test_event_drop_takes_at_most_half_and_adds_nothing():
    torch.manual_seed(0)
    frames = torch.ones(8, 2, 20, 20)
    drop = EventDrop(1.0)
    kept = torch.stack([drop(frames) for _ in range(200)]).flatten(1).mean(1)
    assert 0.45 < float(kept.min()) < 0.6  # up to a half, but for rounding
    assert float(kept.max()) <= 1
    assert torch.equal(EventDrop(0.0)(frames), frames)
    assert {float(v) for v in torch.unique(drop(frames))} <= {0.0, 1.0}
