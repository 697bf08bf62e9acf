"""Weights that a training begins from, from every kind of source."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import save_file

import trevsnn
from helpers import trained_like
from trevsnn import TRevSNN
from trevsnn.cli.main import main
from trevsnn.errors import RunError, UsageError
from trevsnn.run.initial import begin_from
from trevsnn.run.load import load_run
from trevsnn.run.sources import options_of
from trevsnn.zoo.published import published_names

DIGITS = tuple("0123456789")


def untrained_digits(**changes):
    config = trevsnn.create_model("trevsnn_digits").config
    return TRevSNN(trevsnn.TRevSNNConfig(**{**vars(config), **changes}))


def assert_levels_are(model, trained):
    theirs = trained.state_dict()
    assert all(torch.equal(v, theirs[n]) for n, v in model.state_dict().items() if n.startswith(("levels", "encoder")))


def heads_of(model):
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith("heads.")}


@pytest.mark.parametrize("kind", ["run", "export", "name", "file", "save_pretrained"])
def test_every_source_gives_its_weights(finished, tmp_path, kind):
    source = {"run": str(finished), "name": "digits"}.get(kind, str(tmp_path / "it"))
    if kind == "export":
        assert main(["export", str(finished), "--out", source, "--formats"]) == 0
    trained = load_run(finished, "last").model if kind in ("run", "export") else trevsnn.create_model("trevsnn_digits", True)  # fmt: skip
    if kind == "save_pretrained":
        trained.save_pretrained(source)
    elif kind == "file":
        source += ".safetensors"
        save_file(trained.state_dict(), source)
    model = TRevSNN(trained.config)
    said = begin_from(source, model, DIGITS)
    named = kind not in ("file", "save_pretrained")
    unnamed = "the heads are new, for 10 classes, as nothing names the classes that it was trained on"
    heads = "with its heads, as the classes are the same" if named else unnamed
    assert said == f"begins with the weights of {source}; {heads}"
    assert_levels_are(model, trained)
    assert named == all(torch.equal(v, trained.state_dict()[n]) for n, v in heads_of(model).items())
    options = options_of(source)
    assert (options == {}) == (kind == "file")
    if options:
        assert list(trained.config.channels) == list(options["model"]["channels"])
        assert options.get("data", {"image_size": 8}) == {"image_size": 8}
    if kind == "export":  # its file alone: config.json and about.json lie beside it
        file = f"{source}/model.safetensors"
        assert options_of(file)["model"]["channels"] == options["model"]["channels"]
        assert begin_from(file, TRevSNN(trained.config), DIGITS).endswith(
            "; with its heads, as the classes are the same"
        )


def test_classes_of_other_names_have_new_heads_though_there_are_as_many():
    model = untrained_digits()
    before = heads_of(model)
    said = begin_from("digits", model, tuple("abcdefghij"))
    assert said == "begins with the weights of digits; the heads are new, for 10 classes"
    assert_levels_are(model, trevsnn.create_model("trevsnn_digits", pretrained=True))
    assert all(torch.equal(v, before[n]) for n, v in heads_of(model).items())


def test_other_channels_and_fewer_classes():
    said = begin_from("digits", untrained_digits(num_classes=3, in_chans=3), ("a", "b", "c"))
    assert said == (
        "begins with the weights of digits; the heads are new, for 3 classes; the first convolution is adapted to 3 channels"
    )


def test_weights_of_the_published_code(tmp_path):
    trained = trained_like(channels=(4, 6, 8, 8), encoder_stride=4).float()
    names = published_names(trained)
    save_file({names[n]: v.clone() for n, v in trained.state_dict().items()}, tmp_path / "theirs.safetensors")
    model = TRevSNN(trained.config)
    begin_from(str(tmp_path / "theirs.safetensors"), model, tuple("abcde"))
    assert_levels_are(model, trained)


def test_what_cannot_be_begun_from_is_said(tmp_path):
    model = untrained_digits()
    for source, said in (
        ("letters", "init is 'letters', which is none of: the folder of a run"),
        ("hub:digits", "a repository of the Hub is given as hub:OWNER/NAME"),
        (
            "fashion-mnist",
            r"init fashion-mnist: the network has channels \(24, 64, 96\) instead of \(24, 64, 128, 96\)",
        ),
    ):
        with pytest.raises(UsageError, match=said):
            begin_from(source, model, DIGITS)
    (tmp_path / "x.safetensors").write_bytes(b"12345678")
    with pytest.raises(RunError, match=r"x\.safetensors is damaged, or no safetensors file"):
        begin_from(str(tmp_path / "x.safetensors"), model, DIGITS)
    other = trained_like().float().state_dict()
    save_file(other, tmp_path / "y.safetensors")
    with pytest.raises(UsageError, match="the weights are of another network than model"):
        begin_from(str(tmp_path / "y.safetensors"), model, DIGITS)
    weights = trevsnn.create_model("trevsnn_digits", pretrained=True).state_dict()
    weights["levels.0.steps.0.gamma"].fill_(float("nan"))
    save_file(weights, tmp_path / "z.safetensors")
    with pytest.raises(RunError, match=r"levels\.0\.steps\.0\.gamma holds NaN or infinite numbers"):
        begin_from(str(tmp_path / "z.safetensors"), model, DIGITS)


class _Hub(BaseHTTPRequestHandler):
    """As much of the Hub as a download asks for: ``/OWNER/NAME/resolve/REVISION/FILE``."""

    folder = None

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        parts = self.path.split("?")[0].strip("/").split("/")
        file = self.folder / parts[-1]
        if parts[:3] != ["owner", "net", "resolve"] or not file.is_file():
            missing = "EntryNotFound" if parts[:2] == ["owner", "net"] else "RepoNotFound"
            self.send_response(404)
            self.send_header("X-Error-Code", missing)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", f'"{file.name}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.mark.parametrize("about", [True, False])
def test_a_repository_of_the_hub(tmp_path, about):
    folder = tmp_path / "there"
    trained = trevsnn.create_model("trevsnn_digits", pretrained=True)
    trained.save_pretrained(folder)
    if about:
        (folder / "about.json").write_text('{"about": {"classes": ["a", "b"]}}')
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_", (_Hub,), {"folder": folder}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    code = """
import sys, torch, trevsnn
from trevsnn.errors import UsageError
from trevsnn.run.initial import begin_from
from trevsnn.run.sources import options_of
config = trevsnn.create_model("trevsnn_digits").config
assert tuple(options_of("hub:owner/net")["model"]["channels"]) == config.channels
model = trevsnn.TRevSNN(config)
print(begin_from("hub:owner/net", model, tuple("0123456789")))
trained = trevsnn.create_model("trevsnn_digits", pretrained=True)
assert torch.equal(model.levels[1].steps[1].gamma, trained.levels[1].steps[1].gamma)
try:
    begin_from("hub:owner/other", model, tuple("0123456789"))
except UsageError as error:
    print(error)
"""
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    server.shutdown()
    server.server_close()
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().splitlines()
    unnamed = "" if about else ", as nothing names the classes that it was trained on"
    assert first == f"begins with the weights of hub:owner/net; the heads are new, for 10 classes{unnamed}"
    assert second.startswith("hub:owner/other cannot be had (")
    assert second.endswith("): check its name and the connection.")
