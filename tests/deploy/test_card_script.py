"""The script in a model card classifies as ``trevsnn predict`` does, without this package and PyTorch."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets
import torch
import yaml
from PIL import ExifTags, Image

from doc_pages import DOCS
from trevsnn.cli.main import main
from trevsnn.data.files import read_inputs
from trevsnn.data.part import About
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.deploy.onnx.properties import properties_of
from trevsnn.deploy.script import script_section
from trevsnn.run.config import recipe_config
from trevsnn.run.load import load_run

PHOTOGRAPHS = Path(sklearn.datasets.__file__).parent / "images"
GUARD = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("trevsnn", "torch", "torchvision", "timm"):
            raise AssertionError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
code = compile(open("classify.py").read(), "classify.py", "exec")
files = sys.argv[1:]
for file in files:
    sys.argv[1:] = [file]
    exec(code, {"__name__": "__main__"})
assert not {"trevsnn", "torch"} & sys.modules.keys()
"""


def script_of(folder: Path) -> str:
    (script,) = re.findall(r"```python\n(# python classify.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return script


def classify(script: str, folder: Path, *files: Path) -> list[str]:
    """What the script prints of each file, run beside the exported files in an interpreter that refuses this package and
    PyTorch."""
    (folder / "classify.py").write_text(script)
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", GUARD, *map(str, files)],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        (folder / "classify.py").unlink()
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[Path]:
    """Colour, grey, with transparency, large, upright, and smaller than the network's input."""
    folder = tmp_path_factory.mktemp("pictures")
    with Image.open(PHOTOGRAPHS / "china.jpg") as china, Image.open(PHOTOGRAPHS / "flower.jpg") as flower:
        china.save(folder / "colour.jpg")
        flower.convert("L").save(folder / "grey.png")
        clear = china.convert("RGBA")
        clear.putalpha(flower.convert("L"))
        clear.save(folder / "clear.png")
        china.resize((3001, 2003), Image.Resampling.BICUBIC).save(folder / "large.jpg", quality=90)
        flower.transpose(Image.Transpose.ROTATE_90).resize((61, 187)).save(folder / "upright.png")
        flower.resize((7, 5)).save(folder / "small.png")
    return sorted(folder.iterdir())


def predicted(folder: Path, files: list[Path], capsys, engine: str) -> list[dict]:
    capsys.readouterr()
    assert main(["predict", str(folder), *map(str, files), "--engine", engine, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_script_classifies_as_predict_does(wide_export, pictures, capsys):
    """Pillow resizes for torchvision too, so both give the network the same numbers."""
    script = script_of(wide_export)
    assert [line.startswith(("import", "from")) for line in script.splitlines()[1:]].count(False) == 14
    engines = {engine: predicted(wide_export, pictures, capsys, engine) for engine in ("onnx", "eager")}
    names = classify(script, wide_export, *pictures)
    for engine, rows in engines.items():
        assert names == [row["class"] for row in rows], engine


def test_the_script_of_digits_stands_in_the_guide():
    section = script_section(load_run(Path("digits"), "best").config, "model.onnx")
    (script,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert f'```python title="classify.py"\n{script}```' in (DOCS / "do" / "deploy.md").read_text()


@pytest.fixture
def as_if(wide_run, tmp_path):
    """Makes an ONNX export of the run as if it had been trained with other values of its config."""

    def make(change) -> Path:
        run = tmp_path / "run"
        shutil.copytree(wide_run, run)
        config = yaml.safe_load((run / "config.yaml").read_text())
        change(config)
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        assert main(["export", str(run), "--out", str(tmp_path / "out"), "--formats", "onnx"]) == 0
        return tmp_path / "out"

    return make


def test_the_script_decodes_as_coarsely_as_the_run(as_if, pictures, capsys):
    """``data.reduced``, which is chosen for folders of large pictures."""
    out = as_if(lambda config: config["data"].update(reduced=True))
    large = next(file for file in pictures if file.name == "large.jpg")
    (row,) = predicted(out, [large], capsys, "onnx")
    assert classify(script_of(out), out, large) == [row["class"]]


def test_engines_compute_in_float32_what_was_trained_in_float64(as_if, pictures, capsys):
    out = as_if(lambda config: config.update(precision="64-true"))
    assert [row["class"] for row in predicted(out, pictures, capsys, "onnx")] == [
        row["class"] for row in predicted(out, pictures, capsys, "eager")
    ]
    assert main(["evaluate", str(out), "--engine", "onnx", "--json"]) == 0
    assert main(["predict", str(out), str(pictures[0]), "--engine", "folded", "--json"]) == 0


def test_of_16_bit_precision_the_card_says_what_differs(as_if):
    out = as_if(lambda config: config.update(precision="bf16-mixed"))
    assert "The run's precision is bf16-mixed, in which `trevsnn predict` computes" in (out / "README.md").read_text()


def test_the_script_refuses_what_it_would_scale_otherwise(wide_export, tmp_path):
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 150).save(tmp_path / "deep.png")
    with pytest.raises(AssertionError, match="give a picture of 8 bits a channel"):
        classify(script_of(wide_export), wide_export, tmp_path / "deep.png")


def test_of_8_bits_alone_the_script_uses_that_file(wide_export, wide_run, pictures, capsys):
    out = wide_run.with_name("integer")
    assert main(["export", str(wide_run), "--out", str(out), "--formats", "onnx-int8"]) == 0
    script = script_of(out)
    assert '"model-int8.onnx"' in script
    (row,) = predicted(out, pictures[:1], capsys, "onnx-int8")
    assert classify(script, out, pictures[0]) == [row["class"]]


def test_the_script_for_digits_is_grey(tmp_path, pictures, capsys):
    assert main(["export", "digits", "--out", str(tmp_path / "e"), "--formats", "onnx-int8"]) == 0
    rows = predicted(tmp_path / "e", pictures[:3], capsys, "onnx-int8")
    assert classify(script_of(tmp_path / "e"), tmp_path / "e", *pictures[:3]) == [row["class"] for row in rows]


def test_the_file_says_what_it_must_be_given(wide_export):
    about = load_run(wide_export, "last").about
    for name in ("model.onnx", "model-int8.onnx"):
        properties = OnnxModel(wide_export / name).session.get_modelmeta().custom_metadata_map
        found = {key: json.loads(text) for key, text in properties.items() if key != "trevsnn"}
        assert found == {
            "classes": ["cat", "dog"], "input": "pictures", "size": [9, 14], "channels": 3, "mean": list(about.mean),
            "std": list(about.std), "interpolation": "bilinear", "crop": 0.9, "resize": [10, 15],
        }  # fmt: skip
        assert "trevsnn" in properties


def code_of(section: str) -> str:
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]  # type: ignore[index]


class Kept:
    """In place of a session: keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[np.ndarray] = []

    def run(self, names, inputs):
        self.given.append(inputs["input"])
        return [np.zeros((1, 2))]


def inputs_of(config, about, file, monkeypatch) -> np.ndarray:
    """What the script gives the network of a file."""
    kept, metadata = Kept(), properties_of(config, about)
    namespace = f"session, about = kept, {{k: json.loads(v) for k, v in {metadata!r}.items()}}\n"
    code = re.sub(r"session = .*\nabout = .*\n", lambda _: namespace, code_of(script_section(config, "model.onnx")))
    monkeypatch.setattr(sys, "argv", ["classify.py", str(file)])
    exec(compile(code, "classify.py", "exec"), {"kept": kept})
    (given,) = kept.given
    assert given.dtype == np.float32
    return given[0]


@pytest.fixture(scope="module")
def kinds(pictures, tmp_path_factory) -> list[Path]:
    """Pictures of every kind and shape, and turned by their EXIF orientation."""
    folder = tmp_path_factory.mktemp("kinds")
    with Image.open(PHOTOGRAPHS / "china.jpg") as china:
        china.convert("CMYK").resize((303, 181)).save(folder / "cmyk.jpg")
        china.convert("P").save(folder / "palette.png")
        china.resize((3, 500)).save(folder / "thin.jpg")
        large, small, exif = china.resize((1203, 905)), china.resize((41, 27)), Image.Exif()
        large.resize((1201, 903)).convert("L").save(folder / "grey.jpg")
        china.quantize(17).save(folder / "index.png", transparency=3)
        for orientation in range(1, 9):
            exif[ExifTags.Base.Orientation] = orientation
            large.save(folder / f"turned{orientation}.jpg", exif=exif)
            for ending in ("png", "webp", "tif"):
                small.save(folder / f"turned{orientation}.{ending}", exif=exif)
    return [*pictures, *sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("exif_orientation", "reduced", "channels", "size"),
    [
        (True, False, 3, (9, 14)), (True, True, 3, (9, 14)), (False, True, 1, (28, 28)), (True, False, 1, (28, 28)),
        (True, True, 3, (160, 96)), (False, False, 3, (160, 96)),
    ],
)  # fmt: skip
def test_the_script_gives_the_network_the_numbers_that_predict_gives_it(
    kinds, monkeypatch, exif_orientation, reduced, channels, size
):
    """Bit for bit."""
    config = recipe_config("cifar-10", ["--data.name", "folder", "--data.root", ".", "--data.image_size", *map(str, size), "--data.crop_share", "0.9", "--data.reduced", str(reduced).lower(), "--data.exif_orientation", str(exif_orientation).lower()])  # fmt: skip
    about = About(("a", "b"), channels, (0.4, 0.5, 0.3)[:channels], (0.2, 0.3, 0.25)[:channels])
    for file in kinds:
        expected = read_inputs([file], config.data, about, 4)[0]
        assert np.array_equal(inputs_of(config, about, file, monkeypatch), expected.numpy()), file


@pytest.mark.parametrize("recipe", ["n-mnist", "sequential-fashion-mnist"])
def test_scripts_of_frames_and_rows_prepare_what_the_network_takes(tmp_path, monkeypatch, recipe):
    config = recipe_config(recipe)
    about = About(("a", "b"), config.model.in_chans or 1, (0.3,) * 1, (0.4,) * 1)
    if recipe == "n-mnist":
        assert "Recordings of an event camera need the package" in script_section(config, "model.onnx")
        from trevsnn.data.events.transforms import frames_transform

        counts = np.random.default_rng(0).poisson(0.2, (config.model.timesteps, 2, 34, 34)).astype(np.uint8)
        np.save(tmp_path / "in.npy", counts)
        file, expected = tmp_path / "in.npy", frames_transform(config.data, training=False)(counts)
    else:
        file = tmp_path / "in.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 33), np.uint8)).save(file)
        expected = read_inputs([file], config.data, about, config.model.timesteps)[0]
    given = inputs_of(config, about, file, monkeypatch)
    assert torch.allclose(torch.from_numpy(given), expected, atol=1e-6)
