"""Types of options whose range the parser checks; for type checkers plain numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    NonNegativeInt = PositiveInt = int
    OpenUnitInterval = PositiveFloat = float
    PictureSize = int | tuple[int, int]
else:
    from jsonargparse.typing import NonNegativeInt, OpenUnitInterval, PositiveFloat, PositiveInt

    PictureSize = PositiveInt | tuple[PositiveInt, PositiveInt]

__all__ = ["NonNegativeInt", "OpenUnitInterval", "PictureSize", "PositiveFloat", "PositiveInt"]
