"""Runs, exports and configs that somebody sent: what they hold does no harm."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from helpers import picture
from runs import put_in_place_of
from trevsnn import TRevSNN
from trevsnn.cli.main import main
from trevsnn.errors import RunError
from trevsnn.files import file_of
from trevsnn.run.checkpoint import checkpoints, load_checkpoint, remove_checkpoints
from trevsnn.run.folder import RunFolder
from trevsnn.run.load import load_run
from trevsnn.zoo.presets import pretrained_folder


def latest(run: Path) -> Path:
    return checkpoints(run / "checkpoints", "step")[0]


def sign(checkpoint: Path, **more: str) -> None:
    """Write the manifest anew, as a sender would who changed a file."""
    names = [path.name for path in checkpoint.iterdir() if path.name != "manifest.json" and path.is_file()]
    hashes = {name: hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() for name in names}
    (checkpoint / "manifest.json").write_text(json.dumps(hashes | more))


def change_state(run: Path, name: str, value: object) -> None:
    checkpoint = latest(run)
    plain = json.loads((checkpoint / "state.json").read_text())
    plain["__pairs__"] = [[key, value if key == name else old] for key, old in plain["__pairs__"]]
    (checkpoint / "state.json").write_text(json.dumps(plain))
    sign(checkpoint)


@pytest.mark.parametrize("name", ["../other.safetensors", "/dev/zero", "sub/model.safetensors", "optimizer.pt"])
def test_a_manifest_names_the_files_of_a_checkpoint_alone(sent, name):
    sign(latest(sent), **{name: "0" * 64})
    with pytest.raises(RunError, match=r"is damaged .manifest\.json names other files than model.safetensors, ema"):
        load_run(sent, "last")


@pytest.mark.parametrize("name", ["manifest.json", "state.json", "model.safetensors", "state.safetensors"])
@pytest.mark.parametrize("kind", ["link", "pipe", "sparse"])
def test_a_checkpoint_holds_regular_files_of_its_size(sent, tmp_path, name, kind):
    put_in_place_of(latest(sent) / name, kind, tmp_path / "outside")
    said = {"link": "is a link", "pipe": "no regular file", "sparse": "1,099,511,627,776 bytes"}[kind]
    with pytest.raises(RunError, match=rf"is damaged \(({name}: )?it .*{said}|is damaged \(.*{said}"):
        load_run(sent, "last")


@pytest.mark.parametrize("folder", ["checkpoints", "checkpoints/step-000000099", "tensorboard", "tensorboard/steps"])
def test_folders_of_a_run_that_are_links_are_refused_and_nothing_behind_them_is_touched(
    sent, finished, tmp_path, folder, capsys
):
    other = shutil.copytree(finished, tmp_path / "other")
    before = sorted(other.rglob("*"))
    shutil.rmtree(sent / folder, ignore_errors=True)
    (sent / folder).symlink_to(other / "checkpoints")
    (sent / "summary.json").unlink()
    assert main(["train", "--resume", str(sent)]) == 1
    assert main(["evaluate", str(sent)]) == 1
    assert capsys.readouterr().err.count(f"{sent / folder} is a link, and folders of a run are no links") == 2
    assert sorted(other.rglob("*")) == before


def test_a_run_behind_a_link_of_the_user_s_is_a_run(finished, tmp_path):
    (tmp_path / "runs").symlink_to(finished.parent)
    assert load_run(tmp_path / "runs" / finished.name, "best").checkpoint.startswith("best-")


def test_no_checkpoint_is_removed_through_a_link_and_names_of_others_are_left(tmp_path):
    for name in ("step-000000001", "step-000000002", "step-000000009", "step-x", "step-3.old", "mine", "step-\u0663"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    found = checkpoints(tmp_path / "checkpoints", "step")
    remove_checkpoints(found[:1] + found[2:])
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == [
        "mine",
        "step-000000002",
        "step-3.old",
        "step-x",
        "step-\u0663",
    ]
    (tmp_path / "checkpoints" / "step-000000001").symlink_to(tmp_path / "checkpoints" / "mine")
    with pytest.raises(RunError, match="is a link"):
        checkpoints(tmp_path / "checkpoints", "step")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("slope", "0.5", "slope is '0.5'"), ("slope", float("nan"), "slope is nan"), ("about", 1, "does not give classes"),
        ("about", {"__pairs__": [["classes", ["a"] * 10], ["channels", 1], ["mean", [0]], ["std", [1]]]}, "no different names"),
        ("about", {"__pairs__": [["classes", list("abcdefghij")], ["channels", 3], ["mean", [0]], ["std", [1]]]}, "channels is 3"),
        ("about", {"__pairs__": [["classes", list("abcdefghij")], ["channels", 1], ["mean", ["x"]], ["std", [1]]]}, "mean is not"),
        ("about", {"__pairs__": [["classes", list("abcdefghij")], ["channels", 1], ["mean", [0]], ["std", [0]]]}, "std is not"),
    ],
)  # fmt: skip
def test_values_of_a_state_are_of_their_types(sent, name, value, said):
    change_state(sent, name, value)
    with pytest.raises(RunError, match=rf"is damaged \(.*{said}"):
        load_run(sent, "last")


def test_a_network_that_its_file_cannot_hold_takes_no_memory(sent_export):
    for file in ("config.yaml", "config.json"):
        path = sent_export / file
        text = path.read_text()
        assert "96" in text
        path.write_text(text.replace("96", "65536", 1))
    with pytest.raises(
        RunError, match=r"missing or damaged \(it has [\d,]+ bytes, and the network of its config [\d,]{13,} numbers"
    ):
        load_run(sent_export, "last")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"classes": ["x"] * 10}, "no different names"), ({"mean": [float("inf")]}, "mean is not"), ({"std": []}, "std is not"),
        ({"mean": [10**400]}, "mean is not"), ({"std": [10**400]}, "std is not"), ({"std": [1e-320]}, "std is not at least"),
        ({"classes": list(range(10))}, "no different names"), ({"more": 1}, "does not give classes, channels, mean and std"),
    ],
)  # fmt: skip
def test_about_json_is_checked(sent_export, change, said):
    plain = json.loads((sent_export / "about.json").read_text())
    (sent_export / "about.json").write_text(json.dumps(plain | {"about": plain["about"] | change}))
    with pytest.raises(RunError, match=rf"about.json is damaged \(.*{said}"):
        load_run(sent_export, "last")


def test_what_only_uses_a_run_downloads_nothing_and_writes_to_no_cache_of_its_config(sent, tmp_path):
    plain = yaml.safe_load((sent / "config.yaml").read_text())
    plain["data"] |= {
        "name": "fashion-mnist",
        "root": str(tmp_path / "nowhere"),
        "cache": str(tmp_path / "cache"),
        "workers": 1000,
    }
    (sent / "config.yaml").write_text(yaml.safe_dump(plain))
    data = load_run(sent, "last").config.data
    assert (data.download, data.cache, data.workers <= (os.cpu_count() or 1)) == (False, None, True)
    before = sorted(tmp_path.rglob("*"))
    assert main(["evaluate", str(sent)]) == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert load_run(Path("cifar-10"), "last").config.data.download  # the package's own config


def test_predicting_with_an_export_changes_nothing_in_its_folder(sent_export, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture(0, (8, 8), "L").save("p.png")
    state = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["predict", str(sent_export), "p.png"]) == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == state


def test_class_names_command_no_terminal(sent_export, tmp_path, capsys):
    plain = json.loads((sent_export / "about.json").read_text())
    plain["about"]["classes"] = [f"\x1b]0;owned\x07\x1b[2J[red]{i}\u202e\u200b\n" for i in range(10)]
    (sent_export / "about.json").write_text(json.dumps(plain))
    picture(0, (8, 8), "L").save(tmp_path / "p.png")
    for more in ([], ["--json"]):
        assert main(["predict", str(sent_export), str(tmp_path / "p.png"), *more]) == 0
        out = capsys.readouterr().out
        assert (
            r"\x1b]0;owned\x07" in out.replace("u00", "x").replace("\n", "").replace("│", "").replace(" ", "")
            or not more
        )
        assert not set(out) & set("\x1b\x07\u202e\u200b")


def test_files_of_a_checkpoint_are_bounded_by_its_network(finished):
    with pytest.raises(RunError, match=r"model.safetensors: it has [\d,]+ bytes, and [\d,]+ at most"):
        load_checkpoint(latest(finished), numbers=-(2**20) * 2)


@pytest.mark.parametrize("name", ["last_accuracy", "seconds", "firing_rates"])
def test_figures_that_no_float_holds_are_none(sent, tmp_path, capsys, name):
    summary = json.loads((sent / "summary.json").read_text())
    summary[name] = [10**400] if name == "firing_rates" else 10**400
    (sent / "summary.json").write_text(json.dumps(summary))
    if name == "firing_rates":
        assert main(["export", str(sent), "--out", str(tmp_path / "out")]) == 1
        assert "the figures of" in capsys.readouterr().err
    else:
        assert RunFolder.open(sent).summary() == {}


def test_weights_to_begin_from_bring_no_config_through_a_link(tmp_path, capsys):
    folder = tmp_path / "exported"
    folder.mkdir()
    (tmp_path / "outside.json").write_bytes((pretrained_folder("digits") / "config.json").read_bytes())
    (folder / "config.json").symlink_to(tmp_path / "outside.json")
    assert main(["train", "--init", str(folder), "--print_config"]) == 2
    assert "config.json is damaged (it is a link" in capsys.readouterr().err
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(folder / "config.json")
    with pytest.raises(RunError, match="holds no config"):
        TRevSNN.from_pretrained(folder)
    assert file_of(Path("/"), "config.json") == Path("/config.json")  # which has no folder two above


def test_a_run_without_a_name_is_exported_beside_its_folder(sent, monkeypatch, capsys):
    monkeypatch.chdir(sent)
    sent.with_name("sent-exported").mkdir()
    for name in (".", str(sent / ".")):
        assert main(["export", name]) == 2
        assert f"{sent.name}-exported exists already" in capsys.readouterr().err
