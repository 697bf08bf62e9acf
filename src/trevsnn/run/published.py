"""The published training of Hu et al. (ICML 2024), as options of a run: what ``published: true`` stands for.

The values are those of the published code, github.com/BICLab/T-RevSNN: its config of the small network, its optimizer, its
main script, and the log of a training that lies beside them. docs/do/imagenet.md has the differences that remain.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trevsnn.run.config import RunConfig

#: Options that are null until a run is made: our value, and the published one.
OURS_AND_PUBLISHED: dict[str, tuple[Any, Any]] = {
    "optim.decay_gains": (False, True),
    "optim.agc_heads": (False, True),
    "ema_warmup": (True, False),
    "start": ("derived", "published"),
}

#: What a published training needs besides, as the ImageNet recipes have it; any of several values. The published main script
#: reckons and logs an annealing over 50 epochs, which never reaches the layers: they keep slope 1, as with 0 epochs.
PUBLISHED: dict[str, tuple[Any, ...]] = {
    "optim.name": ("lamb",),
    "optim.lr": (2e-3,),
    "optim.lr_per": (1024,),
    "optim.warmup_epochs": (20,),
    "optim.warmup_lr": (1e-5,),
    "optim.min_lr": (1e-6,),
    "optim.weight_decay": (0.01,),
    "optim.trust_clip": (True,),
    "optim.clip": (0.02,),
    "optim.clip_mode": ("agc",),
    "loss": ("deep_supervision",),
    "label_smoothing": (0.1,),
    "slope_epochs": (50, 0),
    "ema_decay": (0.9992,),
    "model.links": ("adjacent",),
    "model.alphas": ("learned",),
    "model.encoding": ("shared",),
    "sync_batchnorm": (False,),
}


def fill_in(config: RunConfig) -> None:
    """Give options that are null our values, or with ``published: true`` the published ones.

    Raises:
        ValueError: ``published: true`` with an option that contradicts it.
    """
    if config.published:
        for name, values in PUBLISHED.items():
            _demand(name, _get(config, name), values)
    config.optim = replace(config.optim)  # another run may share it
    for name, (ours, published) in OURS_AND_PUBLISHED.items():
        value = _get(config, name)
        if value is None:
            _set(config, name, published if config.published else ours)
        elif config.published:
            _demand(name, value, (published,))


def _demand(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if value not in allowed:
        raise ValueError(
            f"published: true, which is for the recipes imagenet-tiny and imagenet-small, needs {name} "
            f"{' or '.join(map(json.dumps, allowed))}, not {json.dumps(value)}: leave out one of the two."
        )


def _owner(config: RunConfig, name: str) -> tuple[Any, str]:
    section, _, field = name.rpartition(".")
    return (getattr(config, section) if section else config), field


def _get(config: RunConfig, name: str) -> Any:
    return getattr(*_owner(config, name))


def _set(config: RunConfig, name: str, value: Any) -> None:
    owner, field = _owner(config, name)
    setattr(owner, field, value)
