"""Data sets: which there are, their parts and items, and how they are loaded. Nothing here knows a network.

A recording of an event camera, and its frames, from Python::

    events = trevsnn.data.read_recording(Path("recording.bin"))  # x, y in pixels, t in microseconds, p 0 darker or 1 brighter
    frames_TCHW = trevsnn.data.bin_events(events, frames=8, size=(34, 34), sensor=(34, 34), by="time")

Importing this module loads neither numpy nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trevsnn.data.convention import Convention
    from trevsnn.data.events.frames import bin_events
    from trevsnn.data.events.recordings import read_recording

__all__ = ["Convention", "bin_events", "read_recording"]

_MODULE_OF = {
    "Convention": "trevsnn.data.convention",
    "bin_events": "trevsnn.data.events.frames",
    "read_recording": "trevsnn.data.events.recordings",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(_MODULE_OF[name]), name)  # from now on without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
