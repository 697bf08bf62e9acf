"""Temporal reversible recurrence over all timesteps, with backward passes of its own."""

from trevsnn.reversible.recurrence import BACKPROP_MODES, Backprop, run, unroll

__all__ = ["BACKPROP_MODES", "Backprop", "run", "unroll"]
