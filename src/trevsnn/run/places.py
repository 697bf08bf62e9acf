"""Where a run's data lie: as it was said, but from the folder it was said in, so that a run goes on from any other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from trevsnn.run.config import RunConfig


def with_whole_paths(config: RunConfig) -> RunConfig:
    """A config whose ``data.root``, ``data.cache`` and, where it is a file or folder, ``init`` do not depend on the working folder."""
    data = replace(config.data, root=whole_path(config.data.root), cache=whole_path(config.data.cache))
    is_path = config.init is not None and Path(config.init).exists()
    return replace(config, data=data, init=whole_path(config.init) if is_path else config.init)


def whole_path(path: str | None) -> str | None:
    """A path from the root folder on; its links stay as they are."""
    return None if path is None else str(Path(path).absolute())
