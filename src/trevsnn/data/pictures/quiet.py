"""Keeps what the libraries below Pillow write to the terminal, beside the errors that Pillow raises, from it."""

from __future__ import annotations

import ctypes
import logging
from contextlib import suppress

from PIL import Image


def quiet() -> None:
    """Silence Pillow's log, unless the program has set one up, and libtiff's error lines, for this process.

    Pillow itself silences libtiff's warnings in just this way; each error it raises as well.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):  # a Pillow without libtiff, or with one inside that nothing can reach
        ctypes.CDLL(Image.core.__file__).TIFFSetErrorHandler(ctypes.c_void_p(None))
