"""What a user of an ONNX file must know of its inputs and classes, in the file's metadata, each value as JSON."""

from __future__ import annotations

import json

from trevsnn.data.part import About
from trevsnn.data.pictures.cover import evaluated_size
from trevsnn.data.sets import is_event
from trevsnn.run.config import RunConfig


def properties_of(config: RunConfig, about: About) -> dict[str, str]:
    """The metadata of a run's exported files.

    ``classes``, their names by index; ``input``, "pictures", "rows" or "frames"; ``size``, [H, W] of a picture or frame;
    ``channels``; and of pictures ``mean`` and ``std`` of each channel in 0..1, ``interpolation`` of the resizing, ``crop``, the
    share of what is resized that the centre crop takes, and ``resize``, the [H, W] that is covered before it.

    Args:
        config: of the run, with the size the files are for.
        about: of its data.
    """
    event = is_event(config.data)
    values = {
        "classes": about.classes, "input": "frames" if event else "rows" if config.data.rows else "pictures",
        "size": config.data.size_HW, "channels": about.channels,
    }  # fmt: skip
    if not event:
        share = config.data.crop_share
        values |= {
            "mean": about.mean, "std": about.std, "interpolation": "bilinear", "crop": share,
            "resize": evaluated_size(config.data.size_HW, share),
        }  # fmt: skip
    return {name: json.dumps(value) for name, value in values.items()}
