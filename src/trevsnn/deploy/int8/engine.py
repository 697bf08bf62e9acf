"""The 8-bit network on a CPU, spike-driven: ``SpikeDriven``, the engine ``spikes``."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.deploy.int8.layers import IntegerConv
from trevsnn.deploy.int8.loops import set_threads
from trevsnn.deploy.int8.maps import channels_last
from trevsnn.deploy.int8.reader import Operator, Reader
from trevsnn.deploy.onnx.model import check_input, check_logits, computing, read_onnx, reading
from trevsnn.deploy.onnx.roles import read_loops
from trevsnn.network.model import TRevSNN

#: Firing rate from which on a convolution of spikes is computed densely (docs/results/inference.md).
CROSSOVER = 0.2


class SpikeDriven:
    """A file of :func:`trevsnn.deploy.onnx.int8.export_integer`, called like the network, on the CPU.

    Convolutions of spikes with long sums, PW2 and the links between levels, are spike-driven where they fire rarely and
    dense elsewhere, by the firing rates of the first call. DW1, whose sums are short, and PW1 and DW2, whose inputs are
    numbers, are dense.

    A file of version 0.1.0 does not say which nodes belong together. It runs operator by operator, densely and slowly, with
    the same results and a warning.

    Args:
        path: of the file.
        model: the network whose weights the file has to be made from; None takes any file.
        crossover: firing rate from which on a convolution of spikes is dense.

    Raises:
        UsageError: onnx is not installed.
        RunError: the file is missing, damaged or of another network.
    """

    def __init__(self, path: Path, model: TRevSNN | None = None, crossover: float = CROSSOVER) -> None:
        onnx = require("onnx")
        with reading(path):
            file = onnx.load_model_from_string(read_onnx(path))
            onnx.checker.check_model(file)
            if any(onnx.external_data_helper.uses_external_data(tensor) for tensor in file.graph.initializer):
                raise ValueError("its numbers lie in other files")
        if model is not None:
            metadata = {entry.key: entry.value for entry in file.metadata_props}
            check_fingerprint(metadata.get(FINGERPRINT), model, path)
        with reading(path):
            self.shape = [axis.dim_value for axis in file.graph.input[0].type.tensor_type.shape.dim[1:]]
            loops = read_loops(file.graph.node)
        if loops is None:
            warnings.warn(
                f"{path} does not say which of its operators belong together, as files of version 0.1.0 do not: the "
                "spike-driven engine is dense and slow, with the same results; export the model again.", stacklevel=2,
            )  # fmt: skip
            loops = [{"plain": node} for node in file.graph.node]
        with reading(path):
            reader = Reader(file.graph.initializer, crossover)
            self.operators = [reader.operator(loop) for loop in loops]
        self.path, self.model = path, model
        _find_last_uses(self.operators)

    @property
    def rates(self) -> dict[str, float]:
        """Firing rate of the input of each convolution of spikes in the first call, by the name of its output."""
        convs = {op.output: op.run for op in self.operators if isinstance(op.run, IntegerConv)}
        return {name: conv.rate for name, conv in convs.items() if conv.rate is not None}

    @torch.no_grad()
    @torch.autocast("cpu", enabled=False)  # it would round the float32 that stands for integers
    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), float32, to logits (B, K).

        Raises:
            ValueError: the input is not float32, has another shape than the file takes, or holds NaN or an infinite number.
            RunError: the file does not compute logits from it.
        """
        check_input(x, self.shape)
        set_threads()
        maps: dict[str, Any] = {"input": channels_last(x.numpy(force=True))}
        with computing(self.path):
            for operator in self.operators:
                maps[operator.output] = operator.run(*(maps[name] for name in operator.inputs))
                for name in operator.last_use_of:
                    del maps[name]
            check_logits(maps["logits"].shape, len(x), self.model)
            return torch.from_numpy(maps["logits"])


def _find_last_uses(operators: list[Operator]) -> None:
    """Fill in, for every operator, which maps no later one takes."""
    taken_later: set[str] = set()
    for operator in reversed(operators):
        operator.last_use_of = list(set(operator.inputs) - taken_later)
        taken_later |= set(operator.inputs)
