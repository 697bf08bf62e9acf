"""Layers that are silent or saturated, and so hardly carry information: one sentence, where they change."""

from __future__ import annotations

from collections.abc import Sequence

RATE_LOW, RATE_HIGH = 0.01, 0.9  # a layer under it is called silent, over it saturated
PLACES = {
    (0,): "the state", (1,): "the first hidden layer", (2,): "the second hidden layer", (1, 2): "both hidden layers",
    (0, 1): "state and first hidden layer", (0, 2): "state and second hidden layer", (0, 1, 2): "all layers",
}  # fmt: skip


class RateWatch:
    """Gives a warning when other layers are silent or saturated than last time.

    Args:
        start: the config's initial weights; others than "derived" are said to be a cause.
    """

    def __init__(self, start: str | None) -> None:
        self._derived = start in (None, "derived")
        self._last: list[str] = []

    def look(self, rates: Sequence[Sequence[float]]) -> str | None:
        """A sentence that names the silent and the saturated layers; None where they are as last time, or none.

        Args:
            rates: for each level the mean firing rates, in 0..1, of its state and of its blocks' hidden neurons.
        """
        silent = _named([[rate < RATE_LOW for rate in row] for row in rates])
        saturated = _named([[rate > RATE_HIGH for rate in row] for row in rates])
        found = [f"under {RATE_LOW:.0%}: {silent}"] * bool(silent) + [f"over {RATE_HIGH:.0%}: {saturated}"] * bool(
            saturated
        )
        if found == self._last or not found:
            self._last = found
            return None
        self._last = found
        advice = "lower optim.lr or raise optim.warmup_epochs"
        if not self._derived:
            advice += ", or begin with start=derived"
        if silent:
            advice += (
                "; if they stay silent their levels work by their links alone, and can be narrower (model.channels)"
            )
        return f"layers fire {'; '.join(found)}: {advice}"


def _named(wrong: Sequence[Sequence[bool]]) -> str:
    """The layers that are wrong, levels with the same ones together; "" for none."""
    levels: dict[tuple[int, ...], list[str]] = {}
    for level, row in enumerate(wrong):
        places = tuple(place for place, is_wrong in enumerate(row) if is_wrong)
        if places:
            levels.setdefault(places, []).append(str(level))
    return _listed([
        f"{PLACES[places]} of level{'s' * (len(found) > 1)} {_listed(found)}" for places, found in levels.items()
    ])  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), *names[-1:]])
