"""Times and rates of recordings in words."""

from __future__ import annotations


def time_unit(microseconds: float) -> tuple[float, str]:
    """The unit that such a time is read in well, in microseconds, and its name: us, ms or s."""
    return (1e6, "s") if microseconds >= 2e6 else (1e3, "ms") if microseconds >= 1e3 else (1.0, "us")


def time_text(microseconds: float) -> str:
    """A time to a tenth of a millisecond, or to a hundredth of a second: "310.5 ms", "18.76 s"."""
    scale, unit = time_unit(microseconds)
    digits = 2 if unit == "s" else 1
    return f"{_plain(f'{microseconds / scale:,.{digits}f}')} {unit}"


def rate_text(rate: float) -> str:
    """A number of events a second, with k, M or G for thousands, millions or milliards: "13.9 k"."""
    for scale, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rate >= 0.99995 * scale:
            return f"{_plain(f'{rate / scale:,.1f}')} {prefix}"
    return f"{rate:.3g}"


def counted(count: int, noun: str) -> str:
    """A number of things: "1 event", "2,000 events"."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _plain(number: str) -> str:
    return number.rstrip("0").rstrip(".")
