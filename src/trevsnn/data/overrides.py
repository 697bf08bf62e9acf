"""Data and size of a user's own for a trained network, in place of those it was trained on. Free of torch and numpy."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from trevsnn.data.config import EVENT_SETS, SENSORS, DataConfig
from trevsnn.data.convention import Polarity, TimeUnit
from trevsnn.errors import UsageError
from trevsnn.sizes import Size


@dataclass(frozen=True)
class DataOverrides:
    """What is said of the data beside a trained network, over what its run's config says.

    Attributes:
        root: Folder of the data.
        image_size: Side of the input in pixels, or height and width.
        name: Kind of the pictures in ``root``, where it is not that of the run.
        cache: Folder for what is made of the data, where it is not the one in the home folder.
        time_unit: Of the times in .csv, .npz and HDF5, where the files do not state it.
        polarity: In these, binary for 0 and 1, signed for -1 and 1.
    """

    root: str | None = None
    image_size: Size | None = None
    name: Literal["folder", "shards"] | None = None
    cache: str | None = None
    time_unit: TimeUnit | None = None
    polarity: Polarity | None = None

    @property
    def place(self) -> bool:
        """Whether they say where the data lie, or of which kind they are."""
        return self.root is not None or self.name is not None

    def over(self, config: DataConfig) -> DataConfig:
        """A run's config with what is said here.

        Raises:
            UsageError: the network was trained on recordings, and pictures are named; or a value that the config refuses.
        """
        changes: dict[str, Any] = {name: value for name, value in asdict(self).items() if value is not None}
        if self.name is not None and config.name in EVENT_SETS:
            raise UsageError(
                f"data.name {self.name} is of pictures, but the network was trained on recordings: leave it out; data.root "
                "alone takes a folder of recordings."
            )
        if self.name is not None and self.name != config.name:
            changes.setdefault("root", None)  # that of the run is another set's
        if (self.time_unit or self.polarity) and config.name in SENSORS:
            changes |= {
                "name": "recordings",
                "sensor": config.sensor_WH,
            }  # no file of the set that it was trained on needs them
        try:
            return replace(config, **changes)
        except ValueError as error:
            raise UsageError(str(error)) from error


#: The data and the size of the run itself.
AS_TRAINED = DataOverrides()
