"""Pictures that could not be written are refused before anything is computed."""

import os

import pytest

from trevsnn.cli.main import main


def fails(capsys, arguments, code, message):
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert (error.startswith("trevsnn: error: "), error.count("\n")) == (True, 1)
    assert message in error


# Each would fail later for want of a run, or compute.
COMMANDS = [
    ["stream", "nowhere", "recording.bin", "--picture"],
    ["predict", "nowhere", "picture.png", "--spikes"],
    ["measure", "energy", "nowhere", "--picture"],
    ["measure", "memory", "--fake", "--picture"],
    ["measure", "speed", "--inference", "--picture"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))
def test_a_missing_folder_is_said_at_the_start(command, tmp_path, capsys):
    place = tmp_path / "missing" / "a.png"
    fails(capsys, [*command, str(place)], 2, f"the folder {tmp_path / 'missing'} is missing: make it, or give another")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("a.odd", 2, "a.odd cannot be drawn: give a file that ends in .png, .svg or .pdf"),
        (".", 2, "is a folder: give the name of the picture, such as"),
        ("pipe.png", 1, "pipe.png is a pipe or a device"),
    ],
)
def test_so_is_what_no_picture_can_be(name, code, message, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.png")
    fails(capsys, ["stream", "nowhere", "recording.bin", "--picture", str(tmp_path / name)], code, message)


def test_a_folder_that_cannot_be_made_for_the_confusion_matrix_is_said_at_the_start(tmp_path, capsys):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "confusion.png"
    fails(capsys, ["evaluate", "nowhere", "--confusion", str(place)], 2, f"{tmp_path / 'file'} cannot be made")
