"""What the numbers of a plain table of events mean where its file does not say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: Of times: seconds, milliseconds, microseconds, nanoseconds.
TimeUnit = Literal["s", "ms", "us", "ns"]
#: How a table says whether a pixel became darker or brighter: 0 and 1 ("binary"), or -1 and 1 ("signed").
Polarity = Literal["binary", "signed"]


@dataclass(frozen=True)
class Convention:
    """For ``.h5``, ``.npz`` and ``.csv``. The other formats say everything themselves, and what a file says is believed.

    Attributes:
        time_unit: of the times. None: integers are microseconds, and floating-point numbers are refused.
        polarity: "binary", 0 darker and 1 brighter, or "signed", -1 darker and 1 brighter. None is "binary".
    """

    time_unit: TimeUnit | None = None
    polarity: Polarity | None = None
