"""The three backward passes, by name; :func:`trevsnn.reversible.run` says what each rests on.

They stand below ``reversible``, so that configs and the command line know them without loading PyTorch.
"""

from __future__ import annotations

from typing import Literal, get_args

#: What a backward pass rests on: "exact", the default, on 2-bit codes of the states; "reversible" on inverted states; "autograd" on
#: the plain graph.
Backprop = Literal["exact", "reversible", "autograd"]
#: All of them, the default first.
BACKPROP_MODES: tuple[Backprop, ...] = get_args(Backprop)
