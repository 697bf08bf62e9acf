"""The tables that ``trevsnn measure`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table


def speed_table(rows: Sequence[dict[str, Any]], title: str, batch: int) -> Table:
    table = Table(title=title)
    add_columns(table, "backprop", "T", "forward", "backward", "step", "pictures/s", "to autograd")
    for row in rows:
        times = (f"{1000 * row[name] / batch:.1f}" for name in ("forward", "backward", "step"))
        ratio = f"{row['ratio_to_autograd']:.2f}"
        table.add_row(row["backprop"], str(row["timesteps"]), *times, f"{row['pictures_per_second']:.1f}", ratio)
    return table


def inference_table(rows: Sequence[dict[str, Any]], title: str, batch: int) -> Table:
    table = Table(title=title)
    add_columns(table, "engine", "one item, ms", f"items/s in batches of {batch}")
    for row in rows:
        table.add_row(row["engine"], f"{1000 * row['latency']:.1f}", f"{row['items_per_second']:.1f}")
    return table


def operations_table(result: dict[str, Any], title: str) -> Table:
    table = Table(title=title)
    table.add_column("layer", no_wrap=True)
    for name in ("MACs, dense", "input", "rate", "synops"):
        table.add_column(name, justify="right")
    for op in result["operations"]:
        of_spikes = (f"{op['rate']:.1%}", f"{op['synops']:,.0f}") if op["spiking"] else ("", "")
        table.add_row(op["name"], f"{op['macs']:,.0f}", "spikes" if op["spiking"] else "numbers", *of_spikes)
    return table


def rates_table(rates_LT: Sequence[Sequence[float]]) -> Table:
    table = Table("level", *(f"t = {t}" for t in range(len(rates_LT[0]))), title="Firing rates of the states")
    for level, row in enumerate(rates_LT):
        table.add_row(str(level), *(f"{rate:.1%}" for rate in row))
    return table


def add_columns(table: Table, first: str, *others: str) -> None:
    """Names to the left, figures to the right."""
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
