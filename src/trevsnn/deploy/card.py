"""The model card of an exported network."""

from __future__ import annotations

import re
from typing import Any

from huggingface_hub import ModelCardData

from trevsnn.data.part import About
from trevsnn.deploy.script import script_section
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.config import RunConfig
from trevsnn.sizes import Size, plain_size, size_text
from trevsnn.terminal import visible


def model_card(
    config: RunConfig,
    about: About,
    report: dict[str, Any],
    figures: dict[str, Any],
    kind: str,
    onnx_file: str | None = None,
) -> str:
    """The card in Markdown: figures that the run and the export measured, and no others.

    Args:
        config, about: of the run.
        report: of :func:`trevsnn.deploy.export.export_run`.
        figures: of the run's summary; empty for a run that has not ended.
        kind: "pictures" or "recordings".
        onnx_file: name of the ONNX file that the card's script uses; None for no script.
    """
    data = ModelCardData(
        library_name="trevsnn", pipeline_tag="image-classification",
        tags=["spiking-neural-network", "trevsnn"],
    )  # fmt: skip
    model = config.model
    classes = ", ".join(map(plain_text, about.classes[:20])) + (", ..." if len(about.classes) > 20 else "")
    lines = [
        f"---\n{data.to_yaml()}\n---\n",
        f"# T-RevSNN on {config.data.name}\n",
        f"A temporal reversible spiking neural network (Hu et al., ICML 2024): channels {list(model.channels)}, "
        f"T = {model.timesteps}{_variant(model)}, for {kind} of {_size(config.data.image_size)}{_rows(config)}, "
        f"{len(about.classes)} classes ({classes}).\n",
        _results(figures, report["checkpoint"]),
        *_other_size(figures, config.data.image_size),
        *(["The weights are stored in 8 bits; the figures of the run are of those before rounding.\n"] if report["compact"] else []),
        "## Forms\n",
        "| form | largest difference of a logit | same class |\n|---|---:|---:|",
        *(f"| {row['name']} | {row['largest']:.1e} | {row['same_class']} of {row['items']} |" for row in report["comparisons"]),
        f"\nBeside the network in evaluation mode, on {report['items']}.{_made_up(report['real_items'])} {folding_sentence(report['spikes'])}\n",
        "## Use\n",
        "```python\nfrom trevsnn import TRevSNN\n\nmodel = TRevSNN.from_pretrained(FOLDER)\n```\n",
        "```sh\ntrevsnn predict FOLDER FILE\n```\n",
        *([script_section(config, onnx_file)] if onnx_file is not None else []),
    ]  # fmt: skip
    return "\n".join(lines)


def plain_text(name: str) -> str:
    """A name in Markdown that stands for itself: no markup, HTML, link or formula, and :func:`trevsnn.terminal.visible`."""
    return re.sub(r"([\\`*_{}\[\]()<>#!|~$&@:.])", r"\\\1", visible(name))


def folding_sentence(spikes: dict[str, Any]) -> str:
    """How many spikes folding changed, from ``spikes`` of an export's report."""
    if spikes["items"] == 0:
        return f"After folding none of {spikes['all']:,} spikes differs, and no logit by more than {spikes['largest_without']:.1e}."
    items = "one item" if spikes["items"] == 1 else f"{spikes['items']} items"
    sentence = f"After folding {spikes['differing']:,} of {spikes['all']:,} spikes differ, in {items}"
    if spikes["largest_without"] is None:
        return f"{sentence}."
    return f"{sentence}; in the others no logit differs by more than {spikes['largest_without']:.1e}."


def _variant(model: TRevSNNConfig) -> str:
    links = ", with links from all levels above" if model.links == "all" else ""
    alphas = ", with every alpha 1" if model.alphas == "one" else ""
    return links + alphas + (", with the mean of the logits over time" if model.readout == "mean" else "")


def _size(size: Size) -> str:
    return size_text(size) + ("" if isinstance(size, int) else " (height x width)")


def _other_size(figures: dict[str, Any], size: Size) -> list[str]:
    trained = plain_size("image_size", figures.get("image_size", size))
    if trained == size:
        return []
    return [
        f"It was trained at {_size(trained)}, and these figures are of that size; at {_size(size)}, for which it is exported, "
        "its accuracy is another.\n"
    ]


def _made_up(real: bool) -> str:
    return "" if real else " The data were not at hand: the figures compare the forms, and say nothing of accuracy."


def _rows(config: RunConfig) -> str:
    return " seen row by row" if config.data.rows else ""


def _results(figures: dict[str, Any], checkpoint: str) -> str:
    if not figures:
        return f"Weights of {checkpoint}; the training had not ended.\n"
    test = figures.get("test_accuracy")
    rates = ", ".join(f"{rate:.1%}" for rate in figures["firing_rates"])
    return (
        f"Weights of {checkpoint}, after {figures['epochs']} epochs in {figures['seconds']:.0f} s. Held out: "
        f"{figures['last_accuracy']:.2%} after the last epoch, {figures['best_accuracy']:.2%} after the best; test: "
        f"{'none' if test is None else f'{test:.2%}'}. Firing rates of the levels: {rates}.\n"
    )
