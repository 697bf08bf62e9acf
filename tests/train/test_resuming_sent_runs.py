"""Going on with a run that somebody sent: its files are read and written as those of a run, and nothing else is."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from helpers import folder_of_pictures, metrics
from trevsnn.cli.main import main
from trevsnn.run.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from trevsnn.train.saved import check_history

TINY = [
    "--model.channels", "[2,4]", "--model.timesteps", "1", "--model.num_classes", "2", "--model.in_chans", "3",
    "--data.name", "folder", "--data.image_size", "8", "--batch_size", "8", "--epochs", "2", "--optim.warmup_epochs", "0",
    "--accelerator", "cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs, which is as if it were interrupted after the first."""
    root = tmp_path_factory.mktemp("sent")
    folder_of_pictures(root / "ds", ("train", "val"), n=8)
    assert main(["train", *TINY, "--data.root", str(root / "ds"), "--run", str(root / "run")]) == 0
    (root / "run" / "summary.json").unlink()
    shutil.rmtree(checkpoints(root / "run" / "checkpoints", "step")[0])
    return root / "run"


def change(run: Path, name: str, value: object) -> None:
    checkpoint = checkpoints(run / "checkpoints", "step")[0]
    weights, state = load_checkpoint(checkpoint)
    save_checkpoint(checkpoint, weights, state | {name: value})


def test_links_in_a_run_are_not_written_through(begun, tmp_path):
    run = shutil.copytree(begun, tmp_path / "run")
    mine = tmp_path / "mine"
    mine.write_text("mine\n")
    names = ("metrics.csv", "steps.csv", "curves.png", "summary.json")
    for name in names:
        (run / name).unlink(missing_ok=True)
        for link in (name, f".{name}.part"):
            if link != "steps.csv":
                (run / link).symlink_to(mine)
    os.link(mine, run / "steps.csv")  # not a link that can be told: the same file under two names
    assert main(["train", "--resume", str(run)]) == 0
    assert mine.read_text() == "mine\n"
    assert all((run / name).is_file() and not (run / name).is_symlink() for name in names)
    assert [float(row["epoch"]) for row in metrics(run)] == [1, 2]


@pytest.mark.parametrize("name", ["steps.csv", ".lock", "config.yaml"])
def test_a_link_or_pipe_that_would_be_read_or_appended_to_is_refused(begun, tmp_path, capsys, name):
    for kind in ("link", "pipe"):
        run = shutil.copytree(begun, tmp_path / kind)
        content = (run / name).read_bytes()
        (run / name).unlink()
        (tmp_path / "mine").write_bytes(content)
        (run / name).symlink_to(tmp_path / "mine") if kind == "link" else os.mkfifo(run / name)
        assert main(["train", "--resume", str(run)]) == 1
        assert name in capsys.readouterr().err
        assert (tmp_path / "mine").read_bytes() == content


def test_a_history_holds_numbers_of_known_names_alone(begun, tmp_path, capsys):
    row = load_checkpoint(checkpoints(begun / "checkpoints", "step")[0])[1]["history"][0]
    strange = [
        [row | {"lr": "=cmd|'/c calc'!A1"}], [row | {"epoch": 7}], [row | {"lr": True}], "rows", [row, row], [{"epoch": 1}], [1],
        [row | {1: 2}], [row | {"rate_level0\nx": 1}], [row | {"rate_level\u0663": 1}], [row | {"lr": 10**400}],
        [row | {"skipped_steps": float("nan")}],
    ]  # fmt: skip
    for history in strange:
        with pytest.raises(ValueError, match="history"):
            check_history(history)
    check_history([row, row | {"epoch": 2}])
    run = shutil.copytree(begun, tmp_path / "run")
    change(run, "history", [row | {"$(touch owned)": 0}])
    assert main(["train", "--resume", str(run)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "is damaged (row 1 of the history holds '$(touch owned)'" in out
    assert "no intact checkpoint: starting from the beginning" in out
    assert [list(row) for row in metrics(run)] == [list(metrics(begun)[0])] * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", -1),
        ("step", 10**30),
        ("seconds", "x"),
        ("optimizer", None),
        ("loss_sum", 1.0),
        ("data", []),
        ("origin", {"config": 1}),
    ],
)
def test_what_is_no_state_is_a_damaged_checkpoint(begun, tmp_path, capsys, name, value):
    run = shutil.copytree(begun, tmp_path / "run")
    change(run, name, value)
    assert main(["train", "--resume", str(run)]) == 0
    assert "is damaged" in capsys.readouterr().out


def test_states_of_other_optimizers_or_generators_are_said_in_a_sentence(begun, tmp_path, capsys):
    for number, (name, value) in enumerate([("optimizer", {"state": {}, "param_groups": []}), ("random", {"cpu": 3})]):
        run = shutil.copytree(begun, tmp_path / str(number))
        change(run, name, value)
        assert main(["train", "--resume", str(run)]) == 1
        assert "is not of this run" in capsys.readouterr().err


def test_rows_of_steps_csv_are_numbers(begun, tmp_path):
    run = shutil.copytree(begun, tmp_path / "run")
    lines = (run / "steps.csv").read_text().splitlines()
    (run / "steps.csv").write_text(
        "\n".join(["$(touch owned)", *lines[1:3], "3,$(touch owned),0,0,0,0", "half"]) + "\n"
    )
    assert main(["train", "--resume", str(run)]) == 0
    text = (run / "steps.csv").read_text()
    assert "touch" not in text
    assert text.splitlines()[:3] == lines[:3]


def test_the_words_of_a_sender_are_shown_and_command_nothing(begun, tmp_path, capsys):
    run = shutil.copytree(begun, tmp_path / "run")
    _, state = load_checkpoint(checkpoints(run / "checkpoints", "step")[0])
    config = state["origin"]["config"]
    versions = {"torch": "\x1b[2J0.1", "other": "1"}
    change(run, "origin", {"config": config | {"loss": "\x1b]0;owned\x07" * 100}, "versions": versions, "processes": 1})
    assert main(["train", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert r"loss \x1b]0;owned\x07" in out
    assert r"torch \x1b[2J0.1 -> " in out
    assert not set(out) & set("\x1b\x07")
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


def test_damaged_checkpoints_of_later_steps_do_not_push_out_new_ones(begun, tmp_path):
    run = shutil.copytree(begun, tmp_path / "run")
    names = [f"{kind}-{number}" for kind in ("step", "best") for number in (999999997, 999999998, 999999999)]
    for name in names:
        (run / "checkpoints" / name).mkdir()
    assert main(["train", "--resume", str(run), "--epochs", "4"]) == 0
    steps = [load_checkpoint(path)[1]["step"] for path in checkpoints(run / "checkpoints", "step")]
    assert len(steps) == 2
    assert len(set(steps)) == 2
    assert max(steps) == json.loads((run / "summary.json").read_text())["steps"]


def test_an_optimizer_s_options_are_the_config_s_and_its_moments_those_of_the_weights(begun, tmp_path, capsys):
    saved = load_checkpoint(checkpoints(begun / "checkpoints", "step")[0])[1]["optimizer"]

    def with_kept(change):
        return {**saved, "state": {number: change(dict(kept)) for number, kept in saved["state"].items()}}

    broken = {
        "other names": with_kept(lambda kept: {"x": 1}),
        "shape": with_kept(lambda kept: kept | {"exp_avg": torch.zeros(3)}),
        "text": with_kept(lambda kept: kept | {"exp_avg": "x"}),
        "steps": with_kept(lambda kept: kept | {"step": torch.tensor(-1.0)}),
    }
    for name, optimizer in broken.items():
        run = shutil.copytree(begun, tmp_path / name)
        change(run, "optimizer", optimizer)
        assert main(["train", "--resume", str(run)]) == 1
        assert "is not of this run" in capsys.readouterr().err
    weights = []
    groups = [group | {"betas": "x", "weight_decay": 1e30, "capturable": True} for group in saved["param_groups"]]
    for number, optimizer in enumerate((saved, {**saved, "param_groups": groups})):
        run = shutil.copytree(begun, tmp_path / str(number))
        change(run, "optimizer", optimizer)
        assert main(["train", "--resume", str(run)]) == 0
        weights.append(load_checkpoint(checkpoints(run / "checkpoints", "step")[0])[0]["model"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
