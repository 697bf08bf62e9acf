"""How much rounding error the inverse recurrence gathers, and what is done about it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

#: Largest error of an inverted state, relative to the largest state, in units of rounding: beyond it, ``exact``
#: keeps a float anchor. 256 units are 1.5e-5 in float32 and 2.8e-14 in float64.
ANCHOR_TOLERANCE = 256.0

#: Largest error of an inverted state, relative to the largest state, that ``reversible`` accepts. A state that crosses
#: the threshold changes the gradient at once, so the error must stay below the distance of the nearest of many
#: thousand states: at 4e-5 (T = 8, alpha = 0.5, float32) gradients of single weights were seen to be 12 % off.
REVERSIBLE_TOLERANCE = 1e-5


class ReversibilityError(ValueError):
    """The rounding error of chained inversion may exceed what ``backprop="reversible"`` accepts."""


def read_alpha(alpha: Tensor) -> NDArray[np.float64]:
    """The numbers of an alpha, of its shape.

    While a CUDA graph is captured none can be read, and those of a replay are not known: zeros stand for them, through which
    nothing is inverted, so that ``exact`` keeps every float state and ``reversible`` refuses.
    """
    if alpha.is_cuda and torch.cuda.is_current_stream_capturing():
        return np.zeros(alpha.shape)
    return alpha.detach().cpu().double().numpy()


def inversion_error(error: np.ndarray | float, alpha: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """Bound the error of c[l,t-1] after one inversion ``c' = (c - F) / alpha``, given the error of c[l,t].

    F is taken to be what it was, to the last bit: so it is in ``exact``, and in ``reversible`` where it looks at spikes,
    as long as none flips. An F that passes small changes of its inputs on adds to the error, by as much as it passes on.

    With unit roundoff u and states at most M in magnitude, an error e*M becomes at most
    ``(e / |alpha| + u * (3 + 1 / |alpha|)) * M``: the product, the sum and the difference round once each before the
    division by alpha, and the quotient once after it. An alpha of 1 leaves ``(e + 2 u) * M``: product and quotient are exact.

    Args:
        error: e, of alpha's shape or a number.
        alpha: alpha[l,t], float64.
        dtype: of the states.

    Returns:
        The new bound, float64, of alpha's shape; infinite or NaN where alpha is 0, through which nothing is inverted.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = 1 / np.abs(alpha)
        return error * factor + torch.finfo(dtype).eps / 2 * (np.where(alpha == 1, 1, 3) + factor)


def plan_anchors(alphas: Sequence[np.ndarray], dtype: torch.dtype) -> list[np.ndarray]:
    """Choose which elements of which states ``exact`` keeps in float, so that inversion stays within its tolerance.

    Args:
        alphas: the alpha of one level in the order of time, float64.
        dtype: of the states.

    Returns:
        For each alpha a mask of its shape: true where the state it multiplies is to be kept (an "anchor").
    """
    limit = ANCHOR_TOLERANCE * torch.finfo(dtype).eps / 2
    masks: list[np.ndarray] = []
    error: np.ndarray | float = 0.0
    for alpha in reversed(alphas):
        error = inversion_error(error, alpha, dtype)
        masks.append(~(error <= limit))  # NaN, too
        error = np.where(masks[-1], 0.0, error)
    return masks[::-1]


def check_reversible(level: int, alphas: Sequence[np.ndarray], dtype: torch.dtype) -> None:
    """Raise :class:`ReversibilityError` where inverting through all of one level's ``alphas`` may lose too much."""
    error: np.ndarray | float = 0.0
    for alpha in reversed(alphas):
        error = inversion_error(error, alpha, dtype)
    if not np.max(error) <= REVERSIBLE_TOLERANCE:  # NaN, too
        smallest = min(float(np.abs(alpha).min()) for alpha in alphas)
        raise ReversibilityError(
            f"backprop='reversible' may reconstruct states of level {level} with a relative error of "
            f"{float(np.max(error)):.1e}, more than the {REVERSIBLE_TOLERANCE:g} it accepts, because inverting "
            f"{len(alphas)} steps in {str(dtype).removeprefix('torch.')} divides by |alpha| down to {smallest:.3g} each "
            "time: use backprop='exact', fewer timesteps, or float64."
        )
