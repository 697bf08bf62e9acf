"""Benchmarks that print one table, at small sizes."""

from pathlib import Path

import pytest
import torch

from processes import run_program

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def rows_of(*command):
    """The table's cells below its head, that a benchmark prints."""
    printed = run_program(BENCHMARKS, *command)
    lines = [line.strip("| ").split(" | ") for line in printed if line.startswith("|")]
    return lines[2:]


def test_what_is_kept_grows_and_autograd_keeps_most():
    rows = rows_of("keep.py", "--model", "trevsnn_digits", "--batch", "1", "--size", "32", "--repeats", "1")
    assert [row[0].split(",")[0] for row in rows] == ["exact"] * 5 + ["autograd"]
    kept, peak = ([float(row[place]) for row in rows] for place in (1, 2))
    assert kept[0] == 0
    assert kept[:5] == sorted(set(kept[:5]))
    assert peak == sorted(peak)


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are counted in Triton's interpreter")
def test_kernels_take_the_place_of_operators():
    (_, autograd, none), (_, plain, _), (_, exact, kernels) = (
        (name, int(count.replace(",", "")), int(own.replace(",", "")))
        for name, count, own, _ in rows_of("launches.py", "--model", "trevsnn_digits", "--timesteps", "2")
    )
    assert none == 0
    assert 0 < kernels < exact < plain
    assert autograd < plain
