"""``trevsnn export``: a trained run as a folder that can be taken elsewhere.

::

    config.json  model.safetensors   the network, in the Hugging Face layout
    README.md                        its model card, with the figures of the run
    config.yaml  about.json          the run's config; its data, figures and checkpoint
    model.onnx                       the folded network for ONNX Runtime
    model.pt2                        the folded network as saved by torch.export
    model-int8.safetensors           the folded network's weights in 8 bits
    model-int8.onnx                  the folded network in 8-bit arithmetic for ONNX Runtime
    model.nir                        the folded network as a NIR graph, where it is asked for

``trevsnn evaluate``, ``predict`` and ``stream`` take such a folder as they take a run.
"""

from __future__ import annotations

import io
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.data.part import About
from trevsnn.data.sets import is_event
from trevsnn.deploy import FORMATS, Format
from trevsnn.deploy.card import model_card
from trevsnn.deploy.differences import spike_differences
from trevsnn.deploy.fingerprint import fingerprint_of
from trevsnn.deploy.folded import FoldedTRevSNN, fold
from trevsnn.deploy.items import Items, items_of
from trevsnn.deploy.nir.network import nir_file, to_nir
from trevsnn.deploy.nir.runner import NirModel
from trevsnn.deploy.onnx.float32 import export_float32
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.deploy.onnx.properties import properties_of
from trevsnn.deploy.quantised import load_quantised, quantise, save_quantised
from trevsnn.errors import RunError, UsageError
from trevsnn.files import fresh_name, read_json, write_file
from trevsnn.network.hub import save_network, weights_sha256
from trevsnn.network.model import TRevSNN
from trevsnn.run.config import RunConfig, to_yaml
from trevsnn.run.folder import ABOUT, RunFolder, is_number
from trevsnn.run.load import Weights, load_run
from trevsnn.sizes import plain_size
from trevsnn.zoo.presets import network_folder

FIGURES = ("last_accuracy", "best_accuracy", "test_accuracy", "epochs", "seconds", "parameters")


@dataclass(frozen=True)
class Comparison:
    """An exported form of the network against the network itself, on the same items.

    Attributes:
        name: of the form.
        largest: largest absolute difference of a logit.
        same_class: how many items are given the same class.
        items: how many there are.
    """

    name: str
    largest: float
    same_class: int
    items: int


@torch.no_grad()
def export_run(
    path: Path, out: Path, weights: Weights, formats: Sequence[Format] | None = None, compact: bool = False,
    data: DataOverrides = AS_TRAINED,
) -> dict[str, Any]:  # fmt: skip
    """Write a run's network in the given forms, and compare each with the network on real items.

    Where the data of the run are missing, and ``data`` names no others, the forms are compared on random numbers, with a
    warning.

    The folder appears when it is complete.

    Args:
        path: of the run, of an export, or the name of a network that comes with the package.
        out: the folder to make.
        weights: which of the run's.
        formats: the forms, beside the network itself; None for all but "nir", without "onnx-int8" where there are no data.
        compact: round the network's weights to 8 bits first, and store them so. All forms are then of the rounded network.
        data: others than the run's for the comparison and the calibration, and the size the network is exported for.

    Returns:
        ``checkpoint``, the name of the weights; ``compact``; ``items``, what the forms were compared on, and ``real_items``, whether
        these are of data; ``comparisons``; and ``spikes``: how many differ after folding, of how
        many, in how many items, and the largest difference of a logit of the items in which none does.

    Raises:
        UsageError: ``out`` exists, an optional library is missing, a format by its name needs data that are, or NIR cannot
            say the network.
        RunError: the run or its data cannot be read, or are missing where ``data`` names them; or their classes are not
            the network's.
    """
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists already: name another folder with --out.")
    model, config, about, checkpoint = load_run(path, weights)
    figures = _figures(path, config)
    items = items_of(
        replace(config, data=data.over(config.data)), about, data, None if formats is None else tuple(formats)
    )
    config = replace(config, data=replace(config.data, image_size=data.image_size or config.data.image_size))
    before = model
    model, stored = quantise(model) if compact else (model, model.state_dict())
    folded = fold(model)
    x = items.x
    logits = model(x)
    unfinished = fresh_name(out.parent)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be made ({error.strerror}): name another folder with --out.") from error
    try:
        forms = {
            "folded": folded,
            **_export_forms(unfinished, model, folded, items, formats, properties_of(config, about)),
        }
        if compact:
            forms["weights before rounding"] = before
        report = {
            "checkpoint": checkpoint, "compact": compact, "items": items.what, "real_items": items.real,
            "comparisons": [asdict(_compare(name, form(x), logits)) for name, form in forms.items()],
            "spikes": _compare_spikes(model, folded, x, logits),
        }  # fmt: skip
        save_network(model, stored, unfinished)
        report["weights_sha256"] = weights_sha256(model)
        _write_about(unfinished, config, about, report, figures)
        unfinished.replace(out)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return report


def _export_forms(
    folder: Path, model: TRevSNN, folded: FoldedTRevSNN, items: Items, formats: Sequence[Format] | None,
    properties: Mapping[str, str],
) -> dict[str, Callable[[Tensor], Tensor]]:  # fmt: skip
    """Write the files of the formats into a folder; what each of them computes, by the name of the form."""
    fingerprint = fingerprint_of(model)
    forms: dict[str, Callable[[Tensor], Tensor]] = {}
    formats = FORMATS if formats is None else formats
    if "onnx" in formats:
        export_float32(folded, folder / "model.onnx", fingerprint, properties)
        forms["onnx"] = OnnxModel(folder / "model.onnx", model)
    if "torch" in formats:
        forms["torch.export"] = _export_torch(folded, items.x[:2], folder / "model.pt2")
    if "int8" in formats:
        save_quantised(quantise(folded)[1], folder / "model-int8.safetensors", fingerprint)
        forms["8-bit weights"] = load_quantised(folder / "model-int8.safetensors", model)
    if "onnx-int8" in formats and items.calibration is not None:
        export_integer(folded, items.calibration, folder / "model-int8.onnx", fingerprint, properties)
        forms["8-bit arithmetic"] = OnnxModel(folder / "model-int8.onnx", model)
    if "nir" in formats:
        size = (items.x.shape[-2], items.x.shape[-1])
        content = nir_file(to_nir(folded, size, fingerprint, properties))
        write_file(folder / "model.nir", content)
        forms["NIR"] = NirModel(content)
    return forms


def _compare_spikes(model: TRevSNN, folded: FoldedTRevSNN, x: Tensor, logits: Tensor) -> dict[str, Any]:
    differing_B, spikes = spike_differences(model, folded, x)
    same = differing_B == 0
    return {
        "differing": int(differing_B.sum()), "all": spikes, "items": int((~same).sum()),
        "largest_without": float((folded(x[same]) - logits[same]).abs().max()) if same.any() else None,
    }  # fmt: skip


def _compare(name: str, logits: Tensor, reference: Tensor) -> Comparison:
    same = int((logits.argmax(1) == reference.argmax(1)).sum())
    return Comparison(name, float((logits - reference).abs().max()), same, len(reference))


def _export_torch(folded: FoldedTRevSNN, example: Tensor, path: Path) -> Callable[[Tensor], Tensor]:
    """Write the network as a program of torch.export; what that file computes."""
    program = torch.export.export(folded, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = io.BytesIO()
        torch.export.save(program, content)
        write_file(path, content.getvalue())
        content.seek(0)
        return torch.export.load(content).module()


def _figures(path: Path, config: RunConfig) -> dict[str, Any]:
    """The figures of a run's summary, or of an export, with the size they were measured at; empty for a run that has not
    ended."""
    path = network_folder(path)
    found = read_json(path / ABOUT).get("figures", {}) if (path / ABOUT).is_file() else RunFolder(path).summary()
    try:
        size = plain_size("image_size", found.get("image_size", config.data.image_size))
        rates = list(found["firing_rates"]) if found else []
        figures = {name: found[name] for name in FIGURES if name in found}
        measured = {name: value for name, value in figures.items() if (name, value) != ("test_accuracy", None)}
        if not all(map(is_number, [*measured.values(), *rates])):
            raise ValueError("a figure is no number")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise RunError(f"the figures of {path} are damaged ({error}): export the run again.") from error
    return {"image_size": size, **figures, "firing_rates": rates} if figures else {}


def _write_about(
    folder: Path, config: RunConfig, about: About, report: dict[str, Any], figures: dict[str, Any]
) -> None:
    kind = "recordings" if is_event(config.data) else "pictures"
    onnx_file = next((name for name in ("model.onnx", "model-int8.onnx") if (folder / name).is_file()), None)
    write_file(folder / "README.md", model_card(config, about, report, figures, kind, onnx_file).encode())
    write_file(folder / "config.yaml", to_yaml(config).encode())
    write_file(folder / ABOUT, json.dumps({"about": asdict(about), "figures": figures, **report}, indent=2).encode())
