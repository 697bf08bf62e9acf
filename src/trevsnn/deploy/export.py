"""``trevsnn export``: a trained run as a folder that can be taken elsewhere.

::

    config.json  model.safetensors   the network, in the Hugging Face layout
    README.md                        its model card, with the figures of the run
    config.yaml  about.json          the run's config; its data, figures and checkpoint
    model.onnx                       the folded network for ONNX Runtime
    model.pt2                        the folded network as torch.export keeps it
    model-int8.safetensors           the folded network's weights in 8 bits
    model-int8.onnx                  the folded network in 8-bit arithmetic for ONNX Runtime

``trevsnn evaluate``, ``predict`` and ``stream`` take such a folder as they take a run.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trevsnn.data.loading import calibration_items, real_items
from trevsnn.data.part import About
from trevsnn.data.sets import is_event
from trevsnn.deploy import Format
from trevsnn.deploy.card import model_card
from trevsnn.deploy.fingerprint import mark_of
from trevsnn.deploy.folded import FoldedTRevSNN, fold, spike_differences
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.deploy.onnx.model import OnnxModel, batch_axis, export_onnx
from trevsnn.deploy.quantised import load_quantised, quantise, save_quantised
from trevsnn.errors import UsageError
from trevsnn.files import write_file
from trevsnn.network.model import TRevSNN
from trevsnn.run.config import RunConfig, to_yaml
from trevsnn.run.folder import ABOUT
from trevsnn.run.load import Weights, load_run
from trevsnn.zoo.presets import pretrained_folder

CHECKED = 256  # items of real data on which every form is compared with the network
CALIBRATING = 128  # items of the training part that 8-bit maps get their ranges from


@dataclass(frozen=True)
class Comparison:
    """A form of the network beside the network itself, on the same real items.

    Attributes:
        name: of the form.
        largest: absolute difference of logits.
        same_class: items given the same class.
        items: in all.
    """

    name: str
    largest: float
    same_class: int
    items: int


@torch.no_grad()
def export_run(path: Path, out: Path, weights: Weights, formats: Sequence[Format]) -> dict[str, Any]:
    """Write a run's network in every asked form, and compare each with the network on real items.

    The folder appears when it is complete.

    Returns:
        ``comparisons``, and ``spikes``: how many differ after folding, of how many, in how many items, and the largest
        difference of a logit of the items in which none does.

    Raises:
        UsageError: ``out`` exists, or an optional library is missing.
        RunError: the run or its data cannot be read.
    """
    if out.exists():
        raise UsageError(f"{out} exists already: name another folder with --out.")
    model, config, about, checkpoint = load_run(path, weights)
    folded = fold(model)
    x = real_items(config.data, config.model.timesteps, CHECKED)
    wanted = model(x)
    beside = out.with_name(f".{out.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        forms: dict[str, Callable[[Tensor], Tensor]] = {"folded": folded}
        if "onnx" in formats:
            export_onnx(folded, x[:2], beside / "model.onnx", mark_of(model))
            forms["onnx"] = OnnxModel(beside / "model.onnx", model)
        if "torch" in formats:
            forms["torch.export"] = _export_torch(folded, x[:2], beside / "model.pt2")
        if "int8" in formats:
            save_quantised(quantise(folded)[1], beside / "model-int8.safetensors", mark_of(model))
            forms["8-bit weights"] = load_quantised(beside / "model-int8.safetensors", model)
        if "onnx-int8" in formats:
            items = calibration_items(config.data, config.model.timesteps, CALIBRATING)
            export_integer(folded, items, beside / "model-int8.onnx", mark_of(model))
            forms["8-bit arithmetic"] = OnnxModel(beside / "model-int8.onnx", model)
        comparisons = [_compare(name, form(x), wanted) for name, form in forms.items()]
        differing_B, spikes = spike_differences(model, folded, x)
        same = differing_B == 0
        report = {
            "checkpoint": checkpoint, "comparisons": [asdict(row) for row in comparisons],
            "spikes": {
                "differing": int(differing_B.sum()), "all": spikes, "items": int((~same).sum()),
                "largest_without": float((folded(x[same]) - wanted[same]).abs().max()) if same.any() else None,
            },
        }  # fmt: skip
        figures = _figures(path)
        _write_network(beside, model, config, about, report, figures)
        beside.replace(out)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return report


def _compare(name: str, logits: Tensor, wanted: Tensor) -> Comparison:
    same = int((logits.argmax(1) == wanted.argmax(1)).sum())
    return Comparison(name, float((logits - wanted).abs().max()), same, len(wanted))


def _export_torch(folded: FoldedTRevSNN, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    program = torch.export.export(folded, (example,), dynamic_shapes=batch_axis())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, path)
        return torch.export.load(path).module()


def _figures(path: Path) -> dict[str, Any]:
    """What the run says of itself at its end, or its export; nothing before."""
    path = pretrained_folder(str(path)) or path
    if (path / ABOUT).is_file():
        return json.loads((path / ABOUT).read_text()).get("figures", {})
    file = path / "summary.json"
    summary = json.loads(file.read_text()) if file.is_file() else {}
    names = ("last_accuracy", "best_accuracy", "test_accuracy", "epochs", "seconds", "firing_rates", "parameters")
    return {name: summary[name] for name in names if name in summary}


def _write_network(
    folder: Path, model: TRevSNN, config: RunConfig, about: About, report: dict[str, Any], figures: dict[str, Any]
) -> None:
    kind = "recordings" if is_event(config.data) else "pictures"
    write_file(folder / "README.md", model_card(config, about, report, figures, kind).encode())
    model.save_pretrained(folder)
    write_file(folder / "config.yaml", to_yaml(config).encode())
    write_file(folder / ABOUT, json.dumps({"about": asdict(about), "figures": figures, **report}, indent=2).encode())
