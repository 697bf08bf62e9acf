"""An optimizer's moments from a checkpoint, checked: somebody else may have written it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_ADAM, _MUON = {"step", "exp_avg", "exp_avg_sq"}, {"use_muon", "momentum_buffer"}

#: What each optimizer keeps of a weight; LAMB counts its steps by the group.
KEPT = {"adamw": (_ADAM,), "lamb": (_ADAM - {"step"},), "muon": (_MUON, _ADAM | {"use_muon"})}


def load_moments(optimizer: Optimizer, saved: Mapping[str, Any], name: str) -> None:
    """Load what an optimizer keeps of each weight. Its options, such as weight decay, stay those of the run's config.

    Args:
        optimizer: a new one.
        saved: the ``state_dict`` of one of the same kind.
        name: ``optim.name`` of the config.

    Raises:
        ValueError, KeyError, TypeError, AttributeError, RuntimeError: it is of another kind or other weights.
    """
    own = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in own]:
        raise ValueError("its groups of weights are others")
    for group, before in zip(own, saved["param_groups"], strict=True):
        if "step" in before:
            group["step"] = before["step"]
            _check_count(group["step"])
    optimizer.load_state_dict({"state": saved["state"], "param_groups": own})
    for weight, kept in optimizer.state.items():
        _check_kept(weight, kept, name)
    _as_weights_lie(optimizer)


def _check_kept(weight: Any, kept: Any, name: str) -> None:
    if not isinstance(weight, Tensor) or not isinstance(kept, dict) or kept.keys() not in KEPT[name]:
        raise ValueError(f"it does not hold what {name} keeps of each weight")
    for key, value in kept.items():
        if key == "step":
            _check_count(value)
        elif key == "use_muon":
            if value is not ("momentum_buffer" in kept) or (value and weight.dim() < 2):
                raise ValueError("use_muon is not as the weights are")
        elif not isinstance(value, Tensor) or value.shape != weight.shape or value.dtype != weight.dtype:
            raise ValueError(f"{key} is not of its weight's shape and type")


def _check_count(value: Any) -> None:
    if not isinstance(value, Tensor) or value.dim() != 0 or not value.is_floating_point() or not 0 <= value < 2**53:
        raise ValueError("step is no number of steps")


def _as_weights_lie(optimizer: Optimizer) -> None:
    """Give the moments of a weight its memory format, which files do not hold.

    AdamW in one pass reads both by address and does not look at strides; for the others the order of sums is the same
    again.
    """
    for weight, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                moments[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)
