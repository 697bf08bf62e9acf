"""The 8-bit network on a CPU with work only where spikes are: weight rows of the inputs that fire are added up.

It runs the ONNX file of :mod:`trevsnn.deploy.onnx.int8` operator by operator, in the same integers as ONNX Runtime, which is
what to fall back on. Compiled by Numba, of the optional extra ``deploy``; without it dense, with the same results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import MARK, check_mark
from trevsnn.deploy.int8.layers import (
    IntegerConv,
    channels_last,
    set_threads,
)
from trevsnn.deploy.int8.reader import Reader
from trevsnn.deploy.onnx.model import check_input, reading
from trevsnn.network.model import TRevSNN

#: Firing rate above which a convolution of spikes is computed densely (docs/results-inference.md).
CROSSOVER = 0.2


class SpikeDriven:
    """A file of :func:`trevsnn.deploy.onnx.int8.export_integer`, called like the network, on the CPU.

    Convolutions of spikes with long sums, PW2 and the links between levels, are spike-driven where they fire rarely and
    dense elsewhere, by the firing rates of the first call. DW1, a few additions for each output, and PW1 and DW2, whose
    inputs are numbers, are dense.

    Args:
        path: of the file.
        model: the network it has to be of; None takes any.
        crossover: firing rate from which on a convolution is dense.

    Raises:
        UsageError: onnx is not installed.
        RunError: the file is missing, damaged or of another network.
    """

    def __init__(self, path: Path, model: TRevSNN | None = None, crossover: float = CROSSOVER) -> None:
        onnx = require("onnx")
        with reading(path):
            file = onnx.load(path)
            onnx.checker.check_model(file)
        if model is not None:
            check_mark({p.key: p.value for p in file.metadata_props}.get(MARK), model, path)
        self.shape = [axis.dim_value for axis in file.graph.input[0].type.tensor_type.shape.dim[1:]]
        self.steps = list(Reader(file.graph, crossover).steps())
        seen: set[str] = set()
        for step in reversed(self.steps):
            step.last_use_of = list(set(step.inputs) - seen)
            seen |= set(step.inputs)

    @property
    def rates(self) -> dict[str, float]:
        """Firing rate of the input of each convolution of spikes in the first call, by name."""
        convs = {step.output: step.run for step in self.steps if isinstance(step.run, IntegerConv)}
        return {name: conv.rate for name, conv in convs.items() if conv.rate is not None}

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)  # of which integers would come back rounded
    def __call__(self, x: Tensor) -> Tensor:
        """Pictures or frames, float32, to logits (B, K).

        Raises:
            ValueError: another shape than the file was made for, or NaN.
        """
        check_input(x, self.shape)
        set_threads()
        values: dict[str, Any] = {"input": channels_last(x.numpy(force=True))}
        for step in self.steps:
            values[step.output] = step.run(*(values[name] for name in step.inputs))
            for name in step.last_use_of:
                del values[name]
        return torch.from_numpy(values["logits"])
