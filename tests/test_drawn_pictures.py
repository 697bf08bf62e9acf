"""The pictures of the documentation: drawn by the scripts, and small."""

import re

import matplotlib
import pytest

from draw_architecture import DRAWN, IMAGES, svg


@pytest.mark.parametrize("name", DRAWN)
def test_the_pictures_of_the_architecture_are_what_the_script_draws(name):
    committed = (IMAGES / f"{name}.svg").read_bytes()
    drawn_by = re.search(rb"Matplotlib v([0-9.]+)", committed)[1].decode()
    if matplotlib.__version__ != drawn_by:
        pytest.skip(f"drawn by Matplotlib {drawn_by}, another version writes other bytes")
    assert svg(name) == committed


def test_every_picture_is_loaded_at_once():
    too_large = {path.name: path.stat().st_size for path in IMAGES.iterdir() if path.stat().st_size >= 150_000}
    assert too_large == {}
