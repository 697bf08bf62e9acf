"""benchmarks/gpu.py: what was measured is on the disk, is not measured again, and stands on the page."""

import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import gpu
import gpu_cases
import gpu_report
from gpu_cases import SMALL, Case, memory_cases
from gpu_rows import BEGAN, Rows, own_group, read_rows
from trevsnn.measure.memory import footprint
from trevsnn.zoo.presets import PRESETS

RESULTS = Path(__file__).parent.parent / "docs" / "results"
PAGE = (RESULTS / "gpu.md").read_text()
#: The quick ones, at two T; a case that needs a GPU; and one of a network that there is not.
CASES = [
    Case("trevsnn tiny", "exact", "eager", 2, 2),
    Case("trevsnn tiny", "autograd", "eager", 2, 2),
    Case("trevsnn tiny", "exact", "eager", 3, 2),
    Case("trevsnn tiny", "exact", "float16", 2, 2),
    Case("trevsnn tiny", "exact", "graph", 2, 2),
    Case("trevsnn large", "exact", "eager", 2, 2),
]


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run a command line of the benchmark, on these few cases."""
    monkeypatch.setattr(gpu, "memory_cases", lambda _: CASES)
    monkeypatch.setenv(BEGAN, "0")  # so that monkeypatch takes away what the command leaves in the environment
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "gpu.md").write_text(PAGE)

    def run(*arguments: str) -> list[dict]:
        monkeypatch.delenv(BEGAN)
        monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
        gpu.main()
        return read_rows(tmp_path / "out" / "memory.jsonl")

    return run


def test_measurements_are_kept_and_reported(command, tmp_path):
    arguments = ["memory", "--small", "--device", "cpu", "--out", str(tmp_path / "out")]
    rows = command(*arguments)
    assert [row["key"] for row in rows] == [case.key for case in CASES]
    assert [row["error"] for row in rows[4:]] == [
        "needs CUDA.",
        "ValueError: there is no model 'trevsnn_large'; there are " + ", ".join(PRESETS) + ".",
    ]
    for row, case in zip(rows[:4], CASES, strict=False):
        step = gpu_cases.build(case, SMALL, "cpu")
        counted = sum(footprint(step.model, step.inputs, step.forward).peak.values())
        assert row["working_bytes"] == counted - sum(tensor.nbytes for tensor in step.inputs)
        assert row["bytes_per_picture"] == row["working_bytes"] / 2
        assert row["pictures_per_second"] == pytest.approx(2e3 / row["step_ms"])
        assert 0 < row["fastest_ms"] <= row["step_ms"] <= row["slowest_ms"]
        assert row["timed_steps"] == SMALL.steps

    # Cut off in the middle of the second line, it goes on with that.
    file = tmp_path / "out" / "memory.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:3]) + lines[3][:40])
    again = command(*arguments)
    assert [row["key"] for row in again] == [case.key for case in CASES]
    assert again[0] == rows[0]
    assert again[1] != rows[1]
    assert command(*arguments) == again
    assert [row["key"] for row in command(*arguments, "--retry")[6:]] == [case.key for case in CASES[4:]]

    command("report", str(tmp_path / "out"), "--docs", str(tmp_path))
    page = (tmp_path / "results" / "gpu.md").read_text()
    mb = [f"{row['bytes_per_picture'] / 1e6:.2f}" for row in again[:3]]
    speed = [f"{row['pictures_per_second']:,.0f}" for row in again[:3]]
    assert f"| trevsnn tiny, exact | {mb[0]} | {speed[0]} |" in page
    assert f"| trevsnn tiny, autograd | {mb[1]} | {speed[1]} |" in page
    assert f"| trevsnn tiny, exact | {mb[0]} | {mb[2]} | {speed[0]} | {speed[2]} |" in page
    low = again[3]
    assert (
        f"| trevsnn tiny, exact, float16 | {low['bytes_per_picture'] / 1e6:.2f} | {low['pictures_per_second']:,.0f} |"
        in page
    )
    assert "- needs CUDA: trevsnn tiny, exact, graph, T = 2, 2." in page
    assert page.split("<!-- measured: end -->")[1] == PAGE.split("<!-- measured: end -->")[1]
    assert json.loads((tmp_path / "results" / "gpu.json").read_text())["memory"][0] == again[0]
    assert len(list((tmp_path / "images").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere", "--docs", "."], "there are no results in 'nowhere'"),
        (["report", "--docs", "."], "there are no results in ''"),
        (["report", "nowhere"], "say with --docs in which folder results/gpu.md is to be written anew"),
        (["bring"], "bring one folder"),
        (["memory", "speed", "--out", "out"], "there is no piece speed"),
        (["memory"], "say with --out where the results go"),
        (["memory", "--out", "out"], "there is no CUDA device on this machine: --small --device cpu tries it all"),
    ],
)
def test_wrong_usage_is_said_and_changes_nothing(command, arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        command(*arguments)
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.rglob("*")] == ["results", "gpu.md"]
    assert (tmp_path / "results" / "gpu.md").read_text() == PAGE


def test_the_page_is_what_a_report_of_its_figures_writes(tmp_path):
    """Of the rows of gpu.json, as measured ones lie in a folder."""
    (tmp_path / "results").mkdir()
    page, figures = tmp_path / "results" / "gpu.md", RESULTS / "gpu.json"
    page.write_text(PAGE)
    for piece, rows in json.loads(figures.read_text()).items():
        (tmp_path / f"{piece}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gpu_report.write([tmp_path], page)
    assert page.read_text() == PAGE
    assert page.with_suffix(".json").read_text() == figures.read_text()


def test_nothing_new_is_started_after_the_time(command, tmp_path):
    assert command("memory", "--small", "--device", "cpu", "--minutes", "0", "--out", str(tmp_path / "out")) == []


def test_every_case_has_a_name_of_its_own():
    for scale in (SMALL, gpu_cases.REAL):
        keys = [case.key for case in memory_cases(scale)]
        assert len(keys) == len(set(keys)) > 80


def test_lack_of_memory_is_a_result_that_is_not_tried_again(tmp_path, monkeypatch):
    def build(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("gpu_measure.build", build)
    rows = Rows(tmp_path / "memory.jsonl")
    rows.add(CASES[0].key, gpu.measure(CASES[0], SMALL, "cpu"))
    assert read_rows(tmp_path / "memory.jsonl")[0]["error"] == "out of memory"
    assert Rows(tmp_path / "memory.jsonl", retry=True).done == {CASES[0].key}


def processes_of(folder: Path) -> list[str]:
    """Command lines of running processes that name a folder."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            continue
    return [line for line in lines if str(folder) in line]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_stopped_benchmark_stops_its_training(tmp_path):
    """Of more epochs than the test waits for, of fewer than would trouble those after it."""
    arguments = ["train", "--small", "--device", "cpu", "--out", str(tmp_path), "--train_options=--epochs 50"]
    with own_group([sys.executable, gpu.__file__, *arguments], stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "run" / "steps.csv").exists():
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        assert any("trevsnn train" in line for line in processes_of(tmp_path))
        process.terminate()
        assert "the same command goes on behind what was measured." in process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert processes_of(tmp_path) == []


def test_what_is_brought_can_be_named_by_its_version():
    for package in ("spikingjelly", "kornia"):
        pytest.importorskip(package)
    assert all(version(name) for name in gpu.BROUGHT)


def test_bringing_what_is_not_installed_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "BROUGHT", ("no-such-wheel",))
    with pytest.raises(SystemExit, match=r"no-such-wheel is not installed here .*: pip install -e"):
        gpu.bring(tmp_path, "3.12")
