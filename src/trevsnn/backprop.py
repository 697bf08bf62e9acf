"""The three backward passes, by name; :func:`trevsnn.reversible.run` says what each rests on.

They stand below ``reversible``, so that configs and the command line know them without loading PyTorch.
"""

from __future__ import annotations

from typing import Literal, get_args

Backprop = Literal["exact", "reversible", "autograd"]
BACKPROP_MODES: tuple[Backprop, ...] = get_args(Backprop)
