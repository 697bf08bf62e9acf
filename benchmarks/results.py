"""Put the figures of finished trainings into docs/results/training.json and the tables of the pages beside it.

    python benchmarks/results.py --runs runs

The folder holds ``recipes/NAME-SEED``, runs of ``trevsnn train``; ``peers/NAME-NETWORK-MINUTES-SEED``, of ``benchmarks/peer.py``;
and ``ablation`` and ``timesteps-NAME``, of ``benchmarks/ablation.py`` and ``benchmarks/timesteps.py``. What is not in it stays as it is in
docs/results/training.json. Tables stand in the pages of docs/results between the lines ``<!-- table NAME -->`` and ``<!-- end -->``. The epochs
of recipes go to docs/results/metrics, and are drawn, of the lowest seed whose epochs are there, as docs/images/NAME-curves.png.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from trevsnn.files import figure_bytes
from trevsnn.run.config import RunConfig, to_dict
from trevsnn.train.curves import curves

PAGES = Path(__file__).parents[1] / "docs" / "results"
METRICS, IMAGES = PAGES / "metrics", PAGES.parent / "images"
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    runs: Path = parser.parse_args().runs
    if not runs.is_dir():
        parser.error(f"--runs: there is no folder {runs}.")
    target = PAGES / "training.json"
    results: dict[str, Any] = json.loads(target.read_text()) if target.is_file() else {}
    for path in sorted((runs / "recipes").glob("*/summary.json")):
        results.setdefault("recipes", {})[path.parent.name] = _trained(json.loads(path.read_text()))
        METRICS.mkdir(exist_ok=True)
        (METRICS / f"{path.parent.name}.csv").write_text((path.parent / "metrics.csv").read_text())
    for path in sorted((runs / "peers").glob("*/summary.json")):
        results.setdefault("peers", {})[path.parent.name] = _placeless(json.loads(path.read_text()))
    for path in sorted(runs.glob("*/results.json")):
        results.setdefault("series", {})[path.parent.name] = json.loads(path.read_text())
    pages = {path: path.read_text() for path in sorted(PAGES.glob("*.md"))}
    for name, table in tables(results):
        begin = f"<!-- table {name} -->\n"
        path = next((path for path, text in pages.items() if begin in text), None)
        if path is None:
            raise SystemExit(f"no page of docs/results has a line {begin.strip()}: add one, and <!-- end --> below it.")
        pages[path] = re.sub(rf"({begin}).*?(<!-- end -->)", rf"\g<1>\n{table}\n\n\g<2>", pages[path], flags=re.DOTALL)
    target.write_text(json.dumps(results, indent=1) + "\n")
    for path, text in pages.items():
        path.write_text(text)
    for path in sorted(METRICS.glob("*.csv"), reverse=True):  # the lowest seed of a name comes last, and stays
        (IMAGES / f"{path.stem.rpartition('-')[0]}-curves.png").write_bytes(figure_bytes(curves(epochs_of(path))))


def epochs_of(path: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.csv."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def _trained(summary: Row) -> Row:
    """What is kept of a run's summary."""
    names = ("last_accuracy", "best_accuracy", "best_epoch", "test_accuracy", "epochs", "parameters", "firing_rates", "hidden_rates",
             "items", "split_sha256", "processes", "machine", "versions", "seconds", "steps", "config")  # fmt: skip
    return _placeless({name: summary[name] for name in names})


def _placeless(summary: Row) -> Row:
    """Without the folders of data: where they lay is nobody's concern."""
    summary["config"]["data"] |= {"root": None, "cache": None}
    return summary


def tables(results: dict[str, Any]) -> Iterable[tuple[str, str]]:
    """Every table by its name, in Markdown."""
    yield "recipes", _markdown(
        ("recipe", "T", "parameters", "epochs", "seeds", "last epoch, held out, %", "best epoch, held out, %", "test, %",
         "quietest hidden layer, %", "seconds", "machine"),
        [_recipe(name, rows) for name, rows in by_seed(results.get("recipes", {}))],
    )  # fmt: skip
    yield "peers", _markdown(
        ("recipe", "minutes", "network", "T", "parameters", "steps", "seeds", "part", "last weights, %", "averaged, %", "machine"),
        [_peer(name, rows) for name, rows in by_seed(results.get("peers", {}))],
    )  # fmt: skip
    for name, series in results.get("series", {}).items():
        yield name, series_table(series)


def by_seed(rows: dict[str, Row]) -> Iterable[tuple[str, list[Row]]]:
    """Rows named NAME-SEED, together for each name; they may differ in the seed alone. An option that an earlier version did not have
    yet has its default."""
    defaults = to_dict(RunConfig())
    groups: dict[str, list[Row]] = {}
    for name, row in rows.items():
        group, _, seed = name.rpartition("-")
        first, config = (_filled(defaults, r["config"]) for r in (groups.setdefault(group, [row])[0], row))
        if seed != str(config["seed"]) or config | {"seed": first["seed"]} != first:
            raise SystemExit(f"{name} is not of seed {seed}, or differs from others of its name in more than the seed.")
        if row is not groups[group][0]:
            groups[group].append(row)
    return groups.items()


def _filled(defaults: Row, config: Row) -> Row:
    """A config of any version with today's options; what is not a default stays, whether there is such an option today or not."""
    sections = {
        name: _filled(value, config.get(name, {})) for name, value in defaults.items() if isinstance(value, dict)
    }
    return defaults | config | sections


def _recipe(name: str, rows: Sequence[Row]) -> tuple[Any, ...]:
    first, config = rows[0], rows[0]["config"]
    machines = "; ".join(dict.fromkeys(row["machine"] for row in rows))
    machine = f"{machines}, {first['processes']} process{'es' if first['processes'] > 1 else ''}"
    return (
        name, config["model"]["timesteps"], f"{first['parameters'] / 1e6:.2f} M", first["epochs"], _seeds(rows),
        *(spread(rows, key) for key in ("last_accuracy", "best_accuracy", "test_accuracy")), f"{quietest(rows):.1f}",
        " ".join(f"{row['seconds']:,.0f}" for row in rows), machine,
    )  # fmt: skip


def _peer(name: str, rows: Sequence[Row]) -> tuple[Any, ...]:
    first = rows[0]
    return (
        name.rsplit("-", 2)[0], f"{first['minutes']:g}", first["network"], first["timesteps"],
        f"{first['parameters'] / 1e6:.2f} M", f"{statistics.mean(row['steps'] for row in rows):,.0f}", _seeds(rows), first["split"],
        spread(rows, "accuracy_last"), spread(rows, "accuracy_averaged"), first["machine"],
    )  # fmt: skip


def _seeds(rows: Sequence[Row]) -> str:
    return ", ".join(str(row["config"]["seed"]) for row in rows)


def series_table(series: dict[str, Row]) -> str:
    """A series of trainings, in Markdown: a line for each variant, and those columns that there are figures for."""
    shown = [column for column in COLUMNS if all(column[1] in row for row in series.values())]
    return _markdown(
        ("", *(title for title, _, _ in shown)),
        [(name, *(cell(row[key]) for _, key, cell in shown)) for name, row in series.items()],
    )


def spread(rows: Sequence[Row], key: str) -> str:
    """Mean and standard deviation over runs, in percent; "none" where there is no such figure."""
    values = [100 * row[key] for row in rows if row[key] is not None]
    if not values:
        return "none"
    return f"{statistics.mean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def quietest(rows: Sequence[Row]) -> float:
    """The lowest firing rate of a hidden layer in any run, a mean over timesteps, in percent."""
    return 100 * min(rate for row in rows for level in row["hidden_rates"] for rate in level)


#: Of a series: title, the variant's figure that it is of, and how it is written.
COLUMNS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("channels", "channels", lambda channels: " ".join(map(str, channels))),
    ("parameters", "runs", lambda rows: f"{rows[0]['parameters'] / 1e6:.3f} M"),
    ("M operations", "macs", lambda macs: f"{macs / 1e6:.1f}"),
    ("held out, %", "runs", lambda rows: spread(rows, "last_accuracy")),
    ("test, %", "runs", lambda rows: spread(rows, "test_accuracy")),
    ("quietest hidden layer, %", "runs", lambda rows: f"{quietest(rows):.1f}"),
    ("`exact`, MB an item", "bytes_per_item", lambda nbytes: f"{nbytes['exact'] / 1e6:.2f}"),
    ("`autograd`, MB an item", "bytes_per_item", lambda nbytes: f"{nbytes['autograd'] / 1e6:.2f}"),
    ("seconds", "runs", lambda rows: f"{statistics.mean(row['seconds'] for row in rows):,.0f}"),
)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


if __name__ == "__main__":
    main()
