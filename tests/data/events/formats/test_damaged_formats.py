"""Damaged recordings of every format: 2,000 of each end in events that are some, or in one sentence."""

import random
import re

import numpy as np
import pytest

from event_files import WRITERS, some_events
from trevsnn.data.events.recordings import EVENT, open_recording
from trevsnn.errors import UnreadableError

resource = pytest.importorskip("resource")
INPUTS = 2000


def damaged(content: bytes, dice: random.Random) -> bytes:
    """Cut off, with bytes changed, with a piece twice or left out, or with another number in four bytes."""
    content = bytearray(content)
    kind = dice.choice(("cut", "change", "change", "head", "twice", "without", "number"))
    at = dice.randrange(len(content))
    if kind == "cut":
        del content[at:]
    elif kind in ("change", "head"):
        for _ in range(dice.randint(1, 8)):
            content[dice.randrange(min(len(content), 200) if kind == "head" else len(content))] = dice.randrange(256)
    elif kind == "twice":
        content[at:at] = content[at : at + dice.randrange(300)]
    elif kind == "without":
        del content[at : at + dice.randrange(300)]
    else:
        number = dice.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x10000000, 1 << 20))
        content[at : at + 4] = number.to_bytes(4, dice.choice(("little", "big")))
    return bytes(content)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_damaged_is_read_as_events_or_refused_in_a_sentence(name, tmp_path):
    path = tmp_path / name
    WRITERS[name](path, some_events(30))
    whole, dice = path.read_bytes(), random.Random(0)
    open_recording(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = 0
    for _ in range(INPUTS):
        with path.open("r+b") as file:  # a file that is made anew goes to the disk
            file.truncate(file.write(damaged(whole, dice)))
        message, recording = "", None
        try:
            recording = open_recording(path)
        except UnreadableError as error:
            message = str(error)
        if recording is None:
            refused += 1
            assert re.fullmatch(rf"{re.escape(str(path))} (cannot be read|holds no events).{{5,500}}[.]", message), (
                message
            )
        else:
            events = recording.events
            assert events.dtype == EVENT
            assert 0 < len(events) <= 1 << 20
            assert events["p"].max() <= 1
            assert np.all(np.diff(events["t"]) >= 0)
    assert 100 < refused < INPUTS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB; of files of some 1,000 bytes
