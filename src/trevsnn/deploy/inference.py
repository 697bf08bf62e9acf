"""A trained run's accuracy with any engine, and its predictions for single files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from matplotlib.figure import Figure
from torch import Tensor

from trevsnn.data.config import Split
from trevsnn.data.files import find_inputs, read_inputs
from trevsnn.data.matched import evaluated_splits, load_matched
from trevsnn.data.overrides import AS_TRAINED, DataOverrides
from trevsnn.deploy import Engine
from trevsnn.deploy.confusion import class_rows
from trevsnn.deploy.engines import BY_PYTORCH, accelerator_for, check_size, make_engine
from trevsnn.deploy.spikes import shown_inputs, spike_maps, spikes_picture
from trevsnn.errors import RunError, UsageError
from trevsnn.network.model import TRevSNN
from trevsnn.network.slicing import fast_format
from trevsnn.run.config import Accelerator, RunConfig
from trevsnn.run.load import Weights, load_run
from trevsnn.train.evaluate import evaluate_part, place_inputs
from trevsnn.train.processes import make_fabric


def evaluate_run(
    path: Path, split: Split | None, weights: Weights, accelerator: Accelerator, engine: Engine = "eager",
    data: DataOverrides = AS_TRAINED,
) -> dict[str, Any]:  # fmt: skip
    """Accuracy and loss of a run, in the precision it was trained in, on one part of its data.

    Args:
        path: of the run, of an export, or the name of a network that comes with the package.
        split: the part; None for the last one there is: test, else val.
        weights: which of the run's.
        accelerator: that the model runs on; engines other than "eager" and "folded" run on the CPU.
        engine: that computes the logits.
        data: others than the run's, with the same classes by name, and a size of the input other than the trained one.

    Returns:
        ``run``, ``checkpoint``, ``engine``, ``split``, the number of ``items``, of which ``unreadable`` were left out,
        ``accuracy`` in 0..1, ``top5`` likewise (None for five classes or fewer), ``loss`` (mean cross entropy), the rows
        ``classes`` of :func:`trevsnn.deploy.confusion.class_rows` and its matrix ``confusion``, and for each level ``firing_rates`` of its state and ``hidden_rates`` of its blocks' hidden neurons; both
        are empty but for the engine "eager".

    Raises:
        UsageError: the data have no such part, the engine needs a file that was not exported or is of another size, or a
            library is missing.
        RunError: the run, its data or an exported file cannot be read, or the data's classes are not the network's.
    """
    model, config, about, checkpoint = load_run(path, weights)
    config = replace(config, data=data.over(config.data))
    available = evaluated_splits(config.data)
    chosen = split or available[-1]
    if chosen not in available:
        raise UsageError(f"{config.data.name} has no part {chosen!r}; it has {', '.join(available)}.")
    fabric = make_fabric(replace(config, accelerator=accelerator_for(engine, accelerator)))
    part = load_matched(config.data, chosen, config.model.timesteps, about)
    model = _place(model, fabric, config, engine)
    other = None if engine == "eager" else make_engine(engine, model, path)  # None: the network, with its firing rates
    if other is not None:
        check_size(other, config.data, engine)
    result = evaluate_part(model, part, config, fabric, other, by_class=True)
    assert result.confusion_KK is not None
    confusion_KK = result.confusion_KK.numpy()
    return {
        "run": str(path), "checkpoint": checkpoint, "engine": engine, "split": chosen, "items": len(part),
        "unreadable": len(part) - int(confusion_KK.sum()), "accuracy": result.accuracy, "top5": result.top5,
        "loss": result.loss, "firing_rates": [row[0] for row in result.rates], "hidden_rates": [row[1:] for row in result.rates],
        "classes": class_rows(about.classes, confusion_KK), "confusion": confusion_KK.tolist(),
    }  # fmt: skip


class Prediction(NamedTuple):
    """What a network says of a file.

    Attributes:
        file: a picture or recording.
        classes: the likeliest ones with their probabilities, likeliest first; empty where the file cannot be read.
        error: why it cannot be read, a sentence; None where it can.
    """

    file: Path
    classes: dict[str, float]
    error: str | None = None


class Predictor:
    """Classifies pictures or recordings, some at a time.

    Args:
        path, weights, accelerator, engine: as in :func:`evaluate_run`.
        data: a size of the input other than the trained one, and the folder that the files' names count from.

    Raises:
        UsageError: the engine needs a file that was not exported or is of another size, a library is missing, or ``data``
            says of which kind they are.
        RunError: the run or an exported file cannot be read.
    """

    def __init__(
        self, path: Path, weights: Weights, accelerator: Accelerator, engine: Engine = "eager",
        data: DataOverrides = AS_TRAINED,
    ) -> None:  # fmt: skip
        if data.name is not None:
            raise UsageError("predict takes the files it is given, one by one: leave out data.name.")
        self._root = Path(data.root or "")
        model, config, self.about, _ = load_run(path, weights)
        self.config = replace(config, data=data.over(config.data))
        self.fabric = make_fabric(replace(self.config, accelerator=accelerator_for(engine, accelerator)))
        model = _place(model, self.fabric, self.config, engine)
        self._model, self._dtype = model, next(model.parameters()).dtype
        self._engine = make_engine(engine, model, path)
        check_size(self._engine, self.config.data, engine)

    def files(self, paths: Sequence[Path]) -> list[Path]:
        """The files themselves, and those in folders, as :func:`trevsnn.data.files.find_inputs`, which raises RunError."""
        return find_inputs([self._root / path for path in paths], self.config.data)

    def predict(self, files: Sequence[Path], batch: int = 64, top: int | None = None) -> Iterator[Prediction]:
        """The classes of every file, in the files' order, which do not depend on ``batch`` but by rounding.

        Args:
            files: pictures, or recordings of an event camera.
            batch: how many are in memory at a time.
            top: how many classes; None for all.

        Raises:
            UsageError: the library that reads the recordings is not installed.
        """
        most = min(top or len(self.about.classes), len(self.about.classes))
        for first in range(0, len(files), batch):
            inputs: dict[int, Tensor] = {}
            errors: dict[int, str] = {}
            for index, file in enumerate(files[first : first + batch]):
                try:
                    inputs[index] = read_inputs([file], self.config.data, self.about, self.config.model.timesteps)
                except RunError as error:
                    errors[index] = str(error)
            found = (
                dict(zip(inputs, self._classes(torch.cat(list(inputs.values())), most), strict=True)) if inputs else {}
            )
            for index, file in enumerate(files[first : first + batch]):
                yield Prediction(file, found.get(index, {}), errors.get(index))

    def spikes(self, file: Path) -> Figure:
        """The spikes of one picture or recording through the network: share of channels by pixel, level and timestep.

        Raises:
            UnreadableError, RunError, UsageError: as :func:`trevsnn.data.files.read_inputs`.
        """
        x = read_inputs([file], self.config.data, self.about, self.config.model.timesteps)
        with self.fabric.autocast():
            spikes_LT = self._model.state_spikes(place_inputs(x.to(self.fabric.device), self._dtype))
        inputs = shown_inputs(x, self.config.data, self.about)
        return spikes_picture(spike_maps(spikes_LT), inputs, f"Channels that fire, {file.name}")

    @torch.no_grad()
    def _classes(self, inputs: Tensor, most: int) -> list[dict[str, float]]:
        inputs = place_inputs(inputs.to(self.fabric.device), self._dtype)
        with self.fabric.autocast():
            logits = self._engine(inputs)
        rows = logits.cpu().double().softmax(1).topk(most)
        names = self.about.classes
        return [
            {names[label]: share for label, share in zip(labels, shares, strict=True)}
            for shares, labels in zip(rows.values.tolist(), rows.indices.tolist(), strict=True)
        ]


def _place(model: TRevSNN, fabric: Fabric, config: RunConfig, engine: Engine) -> TRevSNN:
    """The model on the fabric's device, in the layout it is fastest in, in the run's precision, if the engine knows it."""
    model = model.to(memory_format=fast_format(fabric.device))  # type: ignore[call-overload]
    double = config.precision == "64-true" and engine in BY_PYTORCH
    return model.to(fabric.device, torch.float64 if double else torch.float32)
