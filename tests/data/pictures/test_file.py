"""A picture's file that holds more than one picture."""

import io

import numpy as np
from PIL import Image

from helpers import picture
from trevsnn.data.pictures.file import PictureFile


def written(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_of_an_animation_or_of_pages_the_first_is_taken():
    first, second = picture(1), picture(2)
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        content = written(first, kind, save_all=True, append_images=[second], **options)
        assert PictureFile(content, "x").frames() == 2
        assert np.array_equal(np.asarray(PictureFile(content, "x").decode()), np.asarray(first))
    assert PictureFile(written(first, "PNG"), "x").frames() == 1
