"""The tracker of live storages."""

import torch

from trevsnn.measure.tracker import LiveStorage
from trevsnn.reversible.memory_owner import hand_over, owner


def test_storages_count_from_their_making_to_their_end():
    known = torch.zeros(100)
    with LiveStorage([known]) as tracker:
        with owner("states"):
            a = torch.zeros(10)
        view = a[2:].view(2, 4)
        with owner("codes"):
            b = known.add_(1).new_zeros(7, dtype=torch.uint8)
        assert {k: v for k, v in tracker.live().items() if v} == {"states": 40, "codes": 7}
        del a
        assert tracker.live()["states"] == 40  # the view holds it
        hand_over(view, "anchors")
        assert (tracker.live()["states"], tracker.live()["anchors"]) == (0, 40)
        assert sum(tracker.peak(without=[b]).values()) == 40
        del view
        assert sum(tracker.live().values()) == 7
    assert sum(tracker.peak().values()) == 47


def test_tensors_without_memory_do_not_count():
    with LiveStorage() as tracker:
        like = torch.empty_like(torch.zeros(10), device="meta")
        assert like.untyped_storage().nbytes() == 40
        assert sum(tracker.live().values()) == 0
