"""Memory, time and energy: of a training step, of inference, and of a trained network on real data.

Names only: :mod:`trevsnn.measure.memory`, ``speed``, ``inference`` and ``energy`` measure.
"""

from __future__ import annotations

from typing import Literal, get_args

from trevsnn.deploy import Engine

#: Of a training step: full precision of 32 or 64 bits, or autocast to 16 bits with weights of 32.
MeasuredPrecision = Literal["32-true", "64-true", "bf16-mixed", "16-mixed"]

#: "compiled" is the folded network under torch.compile.
MeasuredEngine = Literal[Engine, "compiled"]
MEASURED_ENGINES: tuple[MeasuredEngine, ...] = get_args(MeasuredEngine)
