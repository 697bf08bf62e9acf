"""Texts of variable length in HDF5, read in a process of its own.

In a damaged file the HDF5 library (2.0.0) crashes or never ends in reading them, and in nothing else that was found.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

#: Seconds and bytes that reading a text may take.
MOST_SECONDS, MOST_MEMORY = 10, 2 << 30
#: Elements of an attribute.
MOST_TEXTS = 16
SCRIPT = """
import contextlib, json, sys
with contextlib.suppress(ImportError, ValueError):
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[4]),) * 2)
import h5py, numpy
with h5py.File(sys.argv[1]) as file:
    values = numpy.ravel(file[sys.argv[2]].attrs[sys.argv[3]])
print(json.dumps([v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values]))
"""


def attribute(path: Path, item: Any, name: str) -> str | None:
    """A text that is an attribute of a group or dataset, or a few with spaces between them. None if there is none.

    Raises:
        ValueError: it cannot be read.
    """
    if name not in item.attrs:
        return None
    stored = item.attrs.get_id(name)
    if math.prod(stored.shape or ()) > MOST_TEXTS or stored.dtype.itemsize > 1024:
        return None
    if not stored.dtype.hasobject:
        values = np.ravel(item.attrs[name])
        texts = [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
        return " ".join(texts)
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-c", SCRIPT, str(path), item.name, name, str(MOST_MEMORY)],
            capture_output=True, timeout=MOST_SECONDS, check=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return " ".join(json.loads(child.stdout))
    except (subprocess.SubprocessError, ValueError) as error:
        raise ValueError(f"its attribute {name} of {item.name} cannot be read") from error
