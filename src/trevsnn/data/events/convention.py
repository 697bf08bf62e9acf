"""What the numbers of a plain table of events mean where its file does not say so. Free of NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

TimeUnit = Literal["s", "ms", "us", "ns"]
Polarity = Literal["binary", "signed"]


@dataclass(frozen=True)
class Convention:
    """How to read a plain table, .h5, .npz or .csv.

    Attributes:
        time_unit: of its times. None: what the file states; else whole numbers are microseconds, and others are refused.
        polarity: "binary" for 0 (darker) and 1 (brighter), "signed" for -1 and 1. None: binary; others are refused.
    """

    time_unit: TimeUnit | None = None
    polarity: Polarity | None = None


AS_STATED = Convention()
