"""Operations, energy and firing rates of a trained network on real data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from trevsnn.data.loading import real_items
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy.folded import fold
from trevsnn.drawing import TEXT, chart, plain
from trevsnn.measure.operations import Operation, count_operations, energy_joules
from trevsnn.run.load import Weights, load_run

PJ_PER_MAC, PJ_PER_SYNOP = 4.6, 0.9  # picojoules: 45 nm, 32-bit floating point


def measure_energy(
    run: Path, weights: Weights, items: int, pj_per_mac: float = PJ_PER_MAC, pj_per_synop: float = PJ_PER_SYNOP,
    data: DataOverrides = AS_TRAINED,
) -> dict[str, Any]:  # fmt: skip
    """Count what the folded network of a run computes for items that it was not trained on.

    Args:
        run: folder of a run or of an export, or the name of a network of the package.
        weights: "last" or "best".
        items: how many, at most, of the data's last part (test, else val).
        pj_per_mac, pj_per_synop: picojoules of a multiply-accumulate and of a synaptic operation.
        data: others than the run's, with the same classes, and a size of the input other than the trained one.

    Returns:
        All figures are means per item: ``macs`` of the dense network; ``operations`` by layer; ``as_computed`` and
        ``merged``, each with ``macs``, ``synops`` and ``joules``, the second by the convention of :func:`merged`; and
        ``rates_LT``, the firing rates of every level's state at every timestep.

    Raises:
        UsageError: ``data`` does not fit the run's config.
        RunError: the run or its data cannot be read, or the data's classes are not the network's.
    """
    model, config, about, checkpoint = load_run(run, weights)
    x = real_items(data.over(config.data), config.model.timesteps, items, about)
    operations = count_operations(fold(model), x)
    _, rates = model.forward_with_rates(x)
    ways = {}
    for name, counted in (("as_computed", operations), ("merged", merged(operations))):
        macs = sum(op.macs for op in counted if not op.spiking)
        synops = sum(op.synops for op in counted if op.spiking)
        joules = energy_joules(counted, pj_per_mac, pj_per_synop)
        ways[name] = {"macs": macs / len(x), "synops": synops / len(x), "joules": joules / len(x)}
    return {
        "run": str(run), "checkpoint": checkpoint, "items": len(x), "pj_per_mac": pj_per_mac,
        "pj_per_synop": pj_per_synop, "macs": sum(op.macs for op in operations) / len(x), **ways,
        "rates_LT": rates.states_LT.tolist(), "operations": [_per_item(op, len(x)) for op in operations],
    }  # fmt: skip


def merged(operations: Sequence[Operation]) -> list[Operation]:
    """Count by the field's convention for a depthwise and a pointwise convolution without a threshold between them.

    The second one of DW1, PW1 and of PW2, DW2 has numbers as input, not spikes. As the two are one linear map, the
    convention counts both as spike-driven: the second one's MACs times the firing rate of the first one's input.

    Args:
        operations: of :func:`trevsnn.measure.operations.count_operations`, of a folded network.

    Returns:
        The same layers, those second ones as spiking.
    """
    by_name = {op.name: op for op in operations}
    result = []
    for op in operations:
        half, _, name = op.name.rpartition(".")
        first = by_name.get(f"{half}.{_FIRST[name]}") if name in _FIRST else None
        if first is None or not first.spiking:
            result.append(op)
        else:
            result.append(Operation(op.name, op.macs, True, round(op.macs * first.rate), first.spikes, first.inputs))
    return result


_FIRST = {"pw1": "dw1", "dw2": "pw2"}


def _per_item(operation: Operation, items: int) -> dict[str, Any]:
    plain = asdict(operation) | {"rate": operation.rate}
    return plain | {name: plain[name] / items for name in ("macs", "synops", "spikes", "inputs")}


def rates_picture(rates_LT: Sequence[Sequence[float]], title: str) -> Figure:
    """A picture of the states' firing rates, in 0..1: a row for each level, the lowest below, a column for each timestep."""
    levels, timesteps = len(rates_LT), len(rates_LT[0])
    figure, (axes,) = chart(max(1.1 * timesteps, 3) + 1.1, 0.75 * levels + 1.15)
    highest = max(map(max, rates_LT))
    axes.imshow(rates_LT, cmap="cividis", vmin=0, vmax=max(highest, 1e-9), aspect="auto", origin="lower")
    for level, row in enumerate(rates_LT):
        for t, rate in enumerate(row):
            colour = "white" if rate < 0.55 * highest or not highest else "black"
            axes.text(t, level, f"{100 * rate:.1f} %", ha="center", va="center", color=colour, fontsize=TEXT)
    plain(axes, title, "timestep", "level")
    axes.grid(visible=False)
    axes.set_xticks(range(timesteps))
    axes.set_yticks(range(levels))
    return figure
