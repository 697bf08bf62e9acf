"""The config of data says what it does not do."""

import pytest

from trevsnn.data.config import DataConfig

PICTURES = {
    "rows": True, "crop": "resized", "crop_scale": 0.5, "crop_share": 0.9, "auto_augment": "rand-m9", "color_jitter": 0.4,
    "reduced": True, "on_device": True, "exif_orientation": False,
}  # fmt: skip
RECORDINGS = {
    "task": "direction", "piece_ms": 10.0, "event_mix": 1.0, "bin_by": "time", "event_drop": 0.5, "sensor": (64, 64),
}  # fmt: skip


@pytest.mark.parametrize("option", PICTURES)
def test_what_is_for_pictures_is_refused_for_recordings(option):
    DataConfig(**{option: PICTURES[option]})
    with pytest.raises(ValueError, match=rf"data\.{option} is for pictures, but n-mnist are recordings: leave it out"):
        DataConfig(name="n-mnist", **{option: PICTURES[option]})


@pytest.mark.parametrize("option", RECORDINGS)
def test_what_is_for_recordings_is_refused_for_pictures(option):
    DataConfig(name="recordings", **{option: RECORDINGS[option]})
    with pytest.raises(ValueError, match=rf"data\.{option} is for recordings, but digits are pictures: leave it out"):
        DataConfig(**{option: RECORDINGS[option]})


def test_a_set_has_its_own_sensor():
    with pytest.raises(ValueError, match=r"n-mnist has its own sensor and units: leave it out"):
        DataConfig(name="n-mnist", sensor=(64, 64))


@pytest.mark.parametrize("value", [0, -1.0, float("inf"), float("nan")])
def test_pieces_have_a_length(value):
    with pytest.raises(ValueError, match=rf"data\.piece_ms is {value}; it must be a number of at least 0\.001"):
        DataConfig(name="n-mnist", piece_ms=value)


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        (
            "auto_augment",
            "rand-m9",
            "changes pictures one by one in the loading processes.*set data.auto_augment to null",
        ),
        ("rows", True, "makes whole pictures, but data.rows asks for their rows"),
        ("reduced", True, "decodes in the loading processes, data.on_device on the device"),
    ],
)
def test_what_the_device_does_not_do_is_refused(option, value, why):
    DataConfig(**{option: value})
    with pytest.raises(ValueError, match=why):
        DataConfig(on_device=True, **{option: value})


@pytest.mark.parametrize(("size", "padding"), [(8, 8), ((12, 5), 5), (8, 100)])
def test_a_crop_holds_something_of_the_picture(size, padding):
    DataConfig(image_size=size, crop_padding=4)
    with pytest.raises(ValueError, match=rf"data\.crop_padding is {padding}, but data\.image_size is .*; lower it"):
        DataConfig(image_size=size, crop_padding=padding)
