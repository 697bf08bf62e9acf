"""All parts of the data are listed and compared before the first step."""

import shutil

import pytest

from helpers import folder_of_pictures
from trevsnn.cli.main import main
from trevsnn.data.pictures.folders import GreyFolder, PictureFolder
from trevsnn.errors import RunError
from trevsnn.train.parts import check_alike

OPTIONS = [
    "--model.channels", "[2,4]", "--model.timesteps", "1", "--model.num_classes", "2", "--model.in_chans", "3", "--data.name",
    "folder", "--data.image_size", "8", "--batch_size", "8", "--epochs", "1", "--optim.warmup_epochs", "0", "--accelerator", "cpu",
]  # fmt: skip


@pytest.mark.parametrize("fault", ["no class", "no picture"])
def test_a_fault_of_the_test_part_ends_a_run_before_it_begins(tmp_path, capsys, fault):
    folder_of_pictures(tmp_path / "ds", ("train", "val", "test"), n=8)
    dog = tmp_path / "ds" / "test" / "dog"
    shutil.rmtree(dog)
    if fault == "no picture":
        dog.mkdir()
    run = tmp_path / "run"
    assert main(["train", *OPTIONS, "--data.root", str(tmp_path / "ds"), "--run", str(run)]) == 1
    said = capsys.readouterr()
    assert "test" in said.err
    assert "dog" in said.err
    assert "epoch" not in said.out
    assert not run.exists()


def test_parts_have_the_classes_of_train_in_their_order_and_its_channels(tmp_path):
    train = PictureFolder(tmp_path, ["a", "b"], [0, 1], ["cat", "dog"])
    check_alike({"train": train, "val": train, "test": train})
    for part, said in (
        (
            PictureFolder(tmp_path, ["a"], [0], ["cat", "fox"]),
            "part val has other classes than train: it lacks dog and has fox",
        ),
        (PictureFolder(tmp_path, ["a"], [0], ["cat"]), "it lacks dog"),
        (PictureFolder(tmp_path, ["a"], [0], ["dog", "cat"]), "in another order"),
        (PictureFolder(tmp_path, [], [], ["cat", "dog"]), "part val holds nothing"),
        (GreyFolder(tmp_path, ["a"], [0], ["cat", "dog"]), "has 1 channels, and train 3"),
    ):
        with pytest.raises(RunError, match=said):
            check_alike({"train": train, "val": part})
