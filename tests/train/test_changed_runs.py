"""A run whose config, data, versions or processes changed before it goes on: what is refused, and what is said."""

import importlib.metadata
import json
import shutil

import pytest
import timm
import torch
import yaml

import trevsnn
from helpers import picture
from runs import begin, change_by_hand, unfinished
from trevsnn.cli.main import main
from trevsnn.network.size import HEADER
from trevsnn.run.checkpoint import checkpoints, load_checkpoint, save_checkpoint


def test_what_was_changed_by_hand_is_said_and_written_down_once(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    file = run / "config.yaml"
    plain = yaml.safe_load(file.read_text())
    decay = plain["optim"]["weight_decay"]
    plain["optim"]["weight_decay"] = 0.5
    file.write_text(yaml.safe_dump(plain))
    assert main(["train", "--resume", str(run)]) == 0
    assert (
        f"warning: optim.weight_decay {decay} -> 0.5 since the run was saved: it goes on, but not to"
        in capsys.readouterr().out
    )
    note = f"after step 5: optim.weight_decay {decay} -> 0.5, by hand"
    assert json.loads((run / "summary.json").read_text())["changes"] == [note]
    assert file.read_text().count(note) == 1


def test_a_run_goes_on_with_options_that_do_nothing_and_a_new_one_does_not_begin_with_them(ended, tmp_path, capsys):
    """Earlier versions took them."""
    run = unfinished(ended, tmp_path / "run")
    plain = yaml.safe_load((run / "config.yaml").read_text())
    assert plain["data"]["crop"] == "pad"
    plain["data"]["crop_scale"] = 0.5
    (run / "config.yaml").write_text(yaml.safe_dump(plain))
    new = tmp_path / "new"
    assert main(["train", "--config", str(run / "config.yaml"), "--run", str(new)]) == 2
    assert "data.crop_scale is of data.crop resized, and does nothing with pad" in capsys.readouterr().err
    assert not new.exists()
    assert main(["train", "--resume", str(run)]) == 0


def test_versions_processes_and_held_out_items_that_changed_are_said(ended, small_set, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    checkpoint = checkpoints(run / "checkpoints", "step")[0]
    weights, state = load_checkpoint(checkpoint)
    state["origin"]["versions"]["timm"] = "0.1"
    save_checkpoint(checkpoint, weights, state | {"origin": state["origin"] | {"processes": 4}})
    fewer = shutil.copytree(small_set, tmp_path / "fewer")
    (fewer / "val" / "cat" / "000.png").unlink()
    assert main(["train", "--resume", str(run), "--data.root", str(fewer)]) == 0
    out = capsys.readouterr().out
    assert f"since the run was saved: processes 4 -> 1, timm 0.1 -> {timm.__version__}; weights may differ" in out
    assert "warning: the held-out data have changed since the run was saved" in out
    assert "the training data have changed" not in out
    assert len(list(run.glob("checkpoints/step-*"))) == 2


@pytest.mark.parametrize("large", [False, True])
def test_a_network_changed_by_hand_is_refused_and_its_checkpoints_stay(ended, tmp_path, capsys, large):
    """However large its weights are: those of a larger network than the config's are not read."""
    run = unfinished(ended, tmp_path / "run")
    checkpoint = checkpoints(run / "checkpoints", "step")[0]
    if large:
        _, state = load_checkpoint(checkpoint)
        save_checkpoint(checkpoint, {"model": {"weight": torch.zeros(HEADER // 4)}}, state)
    change_by_hand(run, "- 2\n  - 4", "- 2\n  - 6")
    before = sorted(run.rglob("*"))
    assert main(["train", "--resume", str(run)]) == 1
    out, error = capsys.readouterr()
    expected = "is of another network than config.yaml describes (model.channels [2, 4] -> [2, 6]): put these back"
    assert expected in error
    assert "it goes on" not in out
    assert sorted(run.rglob("*")) == before


def test_how_a_network_is_computed_may_change(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    change_by_hand(run, "backprop: exact", "backprop: autograd")
    assert main(["train", "--resume", str(run)]) == 0
    assert "warning: model.backprop exact -> autograd since the run was saved" in capsys.readouterr().out


def test_another_optimizer_is_refused_by_its_name(ended, tmp_path, capsys):
    run = unfinished(ended, tmp_path / "run")
    change_by_hand(run, "name: muon", "name: adamw")
    assert main(["train", "--resume", str(run)]) == 1
    out, error = capsys.readouterr()
    assert "does not fit config.yaml, in which was changed: optim.name muon -> adamw: put these back" in error
    assert "it goes on" not in out


def test_classes_that_were_renamed_are_refused(ended, small_set, tmp_path, capsys):
    """As many of as many pictures: the outputs of the network would stand for others."""
    run = unfinished(ended, tmp_path / "run")
    renamed = shutil.copytree(small_set, tmp_path / "renamed")
    for part in ("train", "val"):
        (renamed / part / "cat").rename(renamed / part / "zebra")
    assert main(["train", "--resume", str(run), "--data.root", str(renamed)]) == 1
    expected = "other classes than when the run was saved: cat -> dog, dog -> zebra, in their order: put the data back"
    assert expected in capsys.readouterr().err


def test_an_ended_run_whose_config_was_changed_by_hand_says_that_nothing_is_trained_with_it(ended, tmp_path, capsys):
    run = shutil.copytree(ended, tmp_path / "run")
    change_by_hand(run, "batch_size: 8", "batch_size: 4")
    assert main(["train", "--resume", str(run)]) == 0
    out = capsys.readouterr().out
    assert "warning: batch_size 8 -> 4 in config.yaml since the run ended: nothing is trained with that" in out
    assert "has ended already" in out


def test_a_value_of_a_config_that_is_none_is_named_with_what_it_must_be(ended, tmp_path, capsys):
    run = shutil.copytree(ended, tmp_path / "run")
    change_by_hand(run, "seed: 0", "seed: none")
    assert main(["train", "--resume", str(run)]) == 1
    assert "config.yaml is damaged (seed is 'none'; it must be a whole number.)" in capsys.readouterr().err


@pytest.mark.parametrize(("part", "said"), [("train", "the training data have"), ("val", "the held-out data have")])
def test_a_picture_replaced_by_another_of_its_name_is_said(ended, small_set, tmp_path, capsys, part, said):
    run = unfinished(ended, tmp_path / "run")
    moved = shutil.copytree(small_set, tmp_path / "moved")
    picture(7, (40, 40)).save(moved / part / "cat" / "000.png")
    assert main(["train", "--resume", str(run), "--data.root", str(moved)]) == 0
    out = capsys.readouterr().out
    assert f"warning: {said} changed since the run was saved" in out
    assert out.count("have changed") == 1


def test_a_run_of_the_source_alone_writes_its_checkpoints(small_set, tmp_path, monkeypatch):
    """With src on the path and nothing installed, as on a machine to which one can only copy files."""

    installed = importlib.metadata.distribution

    def others(name):
        if name == "trevsnn":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "distribution", others)
    run = begin(small_set, tmp_path / "run")
    _, state = load_checkpoint(checkpoints(run / "checkpoints", "step")[0])
    assert state["origin"]["versions"]["trevsnn"] == trevsnn.__version__
