"""Operators of a training step: how many a GPU would be asked for, counted on a CPU.

    python benchmarks/launches.py [--model trevsnn_tiny] [--timesteps 4]

Each of PyTorch's operators but views and memory alone counts as one, though some launch two or three kernels; each of this
library's kernels, which run in Triton's interpreter, as one, too. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from dataclasses import replace
from typing import Any
from unittest.mock import patch

os.environ["TRITON_INTERPRET"] = "1"  # read when Triton is imported

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from triton.runtime.interpreter import InterpretedFunction

from trevsnn import TRevSNNConfig
from trevsnn.measure.step import TrainingStep
from trevsnn.neurons import tried_kernels
from trevsnn.zoo.presets import PRESETS

NO_WORK = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "lift_fresh",
    "promote_types",
}


class Operators(TorchDispatchMode):
    """Counts operators by name, and kernels as "triton".

    Kernels do not run: what comes next depends on no number.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        if not func.is_view and name not in NO_WORK:
            self.calls[name] += 1
        return func(*args, **(kwargs or {}))

    def launch(self, *args: Any, **options: Any) -> None:
        """In place of a kernel."""
        self.calls["triton"] += 1


def count(config: TRevSNNConfig) -> Counter[str]:
    """Operators of one forward and backward pass in float16, in which Triton's interpreter is right; the sizes of maps change
    nothing."""
    step = TrainingStep(2, 32, "16-mixed")
    model = step.build(config)
    x, target = step.inputs(config)
    with Operators() as operators, patch.object(InterpretedFunction, "run", operators.launch):
        step.loss(model, x, target).backward()
    return operators.calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=list(PRESETS), default="trevsnn_tiny")
    parser.add_argument("--timesteps", type=int, default=4)
    options = parser.parse_args()
    base = TRevSNNConfig(**PRESETS[options.model] | {"timesteps": options.timesteps})
    print("| | operators | of them kernels of this library | the five most frequent |\n|---|---:|---:|---|")
    tried_kernels.working_kernels(torch.device("cpu"))  # which compares them with plain operations the first time
    for name, changes in {
        "autograd": {"backprop": "autograd"},
        "exact": {"kernels": "eager"},
        "exact, kernels": {"kernels": "triton"},
    }.items():
        by_kernels = changes.get("kernels") == "triton"
        with patch.object(tried_kernels, "takes_kernels", lambda *_, yes=by_kernels: yes):
            calls = count(replace(base, **changes))
        total, own = calls.total(), calls.pop("triton", 0)
        most = ", ".join(f"{n} {operator}" for operator, n in calls.most_common(5))
        print(f"| {name} | {total:,} | {own:,} | {most} |", flush=True)


if __name__ == "__main__":
    main()
