"""The pages of docs/results show what their .json files hold, and what they say of it is so."""

import json
import re
import statistics
from pathlib import Path

import pytest

from results import METRICS, by_seed, epochs_of, quietest, spread, tables

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "results"
RESULTS = json.loads((PAGES / "training.json").read_text())
RUNS = dict(by_seed(RESULTS["recipes"]))


def test_the_tables_on_the_pages_are_those_of_the_figures():
    text = "".join(page.read_text() for page in PAGES.glob("*.md"))
    shown = dict(re.findall(r"<!-- table (\S+) -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL))
    assert shown == dict(tables(RESULTS))


def test_the_tables_of_memory_are_those_of_its_figures():
    pytest.importorskip("spikingjelly")
    from memory import tables as tables_of_memory

    shown = (PAGES / "memory.md").read_text().split("<!-- measured: begin -->\n")[1].split("<!-- measured: end -->")[0]
    assert shown == tables_of_memory(json.loads((PAGES / "memory.json").read_text()))


def test_no_hidden_layer_fell_silent_in_a_recipe():
    for name, row in RESULTS["recipes"].items():
        assert quietest([row]) >= 1, name


def test_epochs_end_with_the_figures_of_their_run():
    kept = sorted(METRICS.glob("*.csv"))
    assert kept
    for path in kept:
        row, epochs = RESULTS["recipes"][path.stem], epochs_of(path)
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, row["epochs"] + 1))
        accuracies = [epoch["val_accuracy"] for epoch in epochs]
        assert (accuracies[-1], max(accuracies)) == (row["last_accuracy"], row["best_accuracy"])


def mean_of(recipe: str, key: str) -> str | None:
    """The mean of all seeds, in percent; None where there is no such figure."""
    figures = [run[key] for run in RUNS[recipe]]
    return None if None in figures else f"{100 * statistics.fmean(figures):.1f}"


@pytest.mark.parametrize(
    ("recipe", "label"),
    [("digits", "scikit-learn's digits"), ("n-mnist", "N-MNIST"), ("fashion-mnist", "Fashion-MNIST"),
     ("tiny-imagenet", "Tiny ImageNet"), ("cifar-10", "CIFAR-10")],
)  # fmt: skip
def test_the_summary_has_the_means_of_all_seeds(recipe, label):
    summary = (PAGES / "index.md").read_text().split("## Accuracy of whole trainings")[1]
    (cells,) = re.findall(rf"^\| {label}[^|]*\|[^|]*\|[^|]*\|(.*)\|.*\|$", summary.split("\n\n")[2], re.MULTILINE)
    for cell, key in zip(cells.split("|"), ("last_accuracy", "best_accuracy", "test_accuracy"), strict=True):
        mean = mean_of(recipe, key)
        if mean is None:
            assert cell.strip() == "none"
        else:
            assert cell.strip().startswith(f"{mean} %")


@pytest.mark.parametrize(
    ("recipe", "path", "sentence"),
    [("digits", "README.md", r"digits have ([\d.]+) %"),
     ("n-mnist", "README.md", r"sample of N-MNIST has ([\d.]+) %"),
     ("fashion-mnist", "README.md", r"Fashion-MNIST ([\d.]+) %"),
     ("tiny-imagenet", "README.md", r"20 classes of Tiny ImageNet ([\d.]+) %"),
     ("cifar-10", "README.md", r"CIFAR-10 has ([\d.]+) %"),
     ("digits", "docs/results/training.md", r"\n\| digits \| \d \| ([\d.]+) %"),
     ("n-mnist", "docs/results/training.md", r"\n\| N-MNIST, a sample \| \d \| ([\d.]+) %"),
     ("fashion-mnist", "docs/results/training.md", r"\n\| Fashion-MNIST \| \d \| ([\d.]+) %"),
     ("tiny-imagenet", "docs/results/training.md", r"\n\| Tiny ImageNet, 20 classes \| \d \| ([\d.]+) %"),
     ("cifar-10", "docs/results/training.md", r"\n\| CIFAR-10 \| \d \| ([\d.]+) %"),
     ("fashion-mnist", "docs/results/index.md", r"Fashion-MNIST, 94 %[^|]*\| ([\d.]+) %"),
     ("cifar-10", "docs/results/index.md", r"CIFAR-10, 88 %[^|]*\| ([\d.]+) %"),
     ("cifar-10", "docs/results/ablation.md", r"([\d.]+) % test at T = 4"),
     ("cifar-10", "docs/choosing.md", r"([\d.]+) % on CIFAR-10 \(JPEG\)"),
     ("fashion-mnist", "src/trevsnn/recipes/fashion-mnist.yaml", r"([\d.]+) % test"),
     ("tiny-imagenet", "src/trevsnn/recipes/tiny-imagenet.yaml", r"([\d.]+) % of the val part"),
     ("cifar-10", "src/trevsnn/recipes/cifar-10.yaml", r"([\d.]+) % test"),
     ("fashion-mnist", "CHANGELOG.md", r"Fashion-MNIST's recipe, preset[^;]*; ([\d.]+) % test"),
     ("tiny-imagenet", "CHANGELOG.md", r"Tiny ImageNet's recipe, with[^;]*; ([\d.]+) % held out"),
     ("cifar-10", "CHANGELOG.md", r"CIFAR-10's recipe, with[^;]*; ([\d.]+) % test")],
)  # fmt: skip
def test_what_is_said_of_a_recipe_elsewhere_is_the_mean_too(recipe, path, sentence):
    mean = mean_of(recipe, "test_accuracy") or mean_of(recipe, "last_accuracy")
    assert re.findall(sentence, (ROOT / path).read_text()) == [mean]


def test_every_figure_has_its_seed_and_machine():
    for kind, threads in (("recipes", "threads a process"), ("peers", "threads")):
        for name, row in RESULTS[kind].items():
            assert name.endswith(f"-{row['config']['seed']}")
            assert threads in row["machine"]
    for series in RESULTS["series"].values():
        for row in series.values():
            assert all("seed" in run and run["machine"] for run in row["runs"])


def test_spread_is_mean_and_standard_deviation_of_a_sample():
    rows = [{"accuracy": value} for value in (0.5, 0.6, 0.7)]
    assert spread(rows, "accuracy") == "60.00 ± 10.00"
    assert spread(rows[:1], "accuracy") == "50.00"
    assert spread([{"accuracy": None}], "accuracy") == "none"
    with pytest.raises(KeyError):
        spread(rows, "loss")


def test_runs_that_differ_in_more_than_the_seed_make_no_mean():
    rows = {name: RESULTS["recipes"][name] for name in ("digits-0", "digits-1")}
    config = rows["digits-1"]["config"]
    for name, row in (
        ("digits-1", rows["digits-1"] | {"config": config | {"epochs": 1}}),
        ("digits-1", rows["digits-0"]),
        ("digits-old", rows["digits-0"]),
    ):
        with pytest.raises(
            SystemExit, match=rf"^{name} is not of seed \w+, or differs from others of its name in more than the seed"
        ):
            dict(tables({"recipes": {"digits-0": rows["digits-0"], name: row}}))


def test_an_option_that_came_later_has_its_default():
    first, second = (RESULTS["recipes"][f"digits-{seed}"] for seed in (0, 1))
    for precision, same in (("32-true", True), ("64-true", False)):
        earlier = {name: value for name, value in first["config"].items() if name != "precision"}
        rows = {
            "digits-0": first | {"config": earlier},
            "digits-1": second | {"config": second["config"] | {"precision": precision}},
        }
        if same:
            assert "| 0, 1 |" in dict(tables({"recipes": rows}))["recipes"]
        else:
            with pytest.raises(SystemExit, match="digits-1 is not of seed 1, or differs"):
                dict(tables({"recipes": rows}))
