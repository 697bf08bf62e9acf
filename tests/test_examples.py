"""The examples run as their first lines say, and what they print holds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def lines_of(name, *arguments):
    """What an example prints, without a warning."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / name, *arguments],
        capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_each_begins_with_its_command(path):
    assert f"\n\n    python examples/{path.name}" in path.read_text()


def test_lif_networks():
    lines = lines_of("lif_networks.py", "--steps", "6")
    assert [line.split(",")[0] for line in lines] == ["VGG", "SEW-ResNet-18", "Spikformer"]
    for line in lines:
        exact, autograd, first, last = map(float, re.findall(r"\d+\.\d+", line))
        assert exact < 0.6 * autograd
        assert last < first


def test_own_neuron():
    window, arctan = lines_of("own_neuron.py")
    assert ": 2 bits" in window
    assert ": 64 bits" in arctan
    for line in (window, arctan):
        assert float(re.search(r"differ by (\S+) relative", line)[1]) < 1e-12


def test_own_modules():
    for line in lines_of("own_modules.py"):
        exact, autograd = map(float, re.findall(r"\d+\.\d", line))
        assert exact < 0.3 * autograd
        assert float(re.search(r"differ by (\S+) relative", line)[1]) < 1e-6
