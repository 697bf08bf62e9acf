"""Pictures in folders, ImageNet's archives, CIFAR, and the check of a data set."""

import hashlib
import io
import json
import pickle
import re
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from scipy.io import savemat
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10

from conftest import shared_data
from helpers import folder_of_pictures, picture
from trevsnn.cli.main import main
from trevsnn.data.config import DataConfig
from trevsnn.data.loading import IGNORED, TensorDataset, batches, loading_deaths, make_loader
from trevsnn.data.part import UnreadableError
from trevsnn.data.pictures import imagenet
from trevsnn.data.pictures import in_memory as small
from trevsnn.data.pictures.folders import folder_splits, load_folder
from trevsnn.data.pictures.transforms import BatchMixup, picture_transform
from trevsnn.data.sampling import EpochSampler, seeded
from trevsnn.data.sets import load
from trevsnn.errors import RunError


def config(root: Path, **options: object) -> DataConfig:
    return DataConfig(**{"name": "folder", "root": str(root), "image_size": 8, **options})


@pytest.mark.parametrize(
    ("parts", "counts"),
    [
        (("train", "val"), {"train": 40, "val": 40}),
        (("train", "test"), {"train": 36, "val": 4, "test": 40}),
        (("train", "val", "test"), {"train": 40, "val": 40, "test": 40}),
    ],
)
def test_parts_of_a_folder(tmp_path, parts, counts):
    folder_of_pictures(tmp_path, parts)
    found = {split: load_folder(config(tmp_path), split) for split in folder_splits(config(tmp_path))}
    assert {split: len(part) for split, part in found.items()} == counts
    names = [part.name(i) for part in found.values() for i in range(len(part))]
    assert len(set(names)) == len(names)
    assert np.bincount(found["val"].labels_N).tolist() == [counts["val"] // 2] * 2
    assert found["train"].classes == ("cat", "dog")
    assert found["val"].digest() == load_folder(config(tmp_path), "val").digest()
    if "test" not in counts:
        with pytest.raises(RunError, match="has no test folder: evaluate on 'val'"):
            load_folder(config(tmp_path), "test")


def test_tiny_imagenet_as_published(tmp_path):
    """train/WNID/images, val/images with a table, and test pictures without labels."""
    for label, wnid in enumerate(("n01", "n02")):
        (tmp_path / "train" / wnid / "images").mkdir(parents=True)
        for i in range(3):
            picture(10 * label + i).save(tmp_path / "train" / wnid / "images" / f"{wnid}_{i}.JPEG")
    (tmp_path / "val" / "images").mkdir(parents=True)
    for i in range(4):
        picture(i).save(tmp_path / "val" / "images" / f"val_{i}.JPEG")
    (tmp_path / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\t{('n02', 'n01')[i % 2]}\t0\t0\t62\t57\n" for i in range(4))
    )
    (tmp_path / "test" / "images").mkdir(parents=True)
    assert folder_splits(config(tmp_path)) == ["train", "val"]
    part = load_folder(config(tmp_path), "val")
    assert part.labels_N.tolist() == [1, 0, 1, 0]
    assert part.name(2).endswith("val/images/val_2.JPEG")
    assert part.read(0).size == (12, 10)


def test_bad_folders_are_said(tmp_path):
    with pytest.raises(RunError, match="holds none of the folders train, val and test: it needs train"):
        load_folder(config(tmp_path), "train")
    folder_of_pictures(tmp_path, ("train", "val"))
    shutil.rmtree(tmp_path / "val" / "dog")
    with pytest.raises(RunError, match=r"val/dog holds no file that ends in .jpg"):
        load_folder(config(tmp_path), "val")
    (tmp_path / "val" / "dodo").mkdir()
    with pytest.raises(RunError, match="has a folder 'dodo' that is no class of the training part"):
        load_folder(config(tmp_path), "val")


def damage(root: Path) -> None:
    """The sixth picture of the cats cut off, the eighth gone."""
    file = root / "train" / "cat" / "005.png"
    file.write_bytes(file.read_bytes()[:100])
    (root / "train" / "cat" / "007.png").unlink()


def test_unreadable_pictures_fail_or_are_skipped_and_named(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"))
    for policy in ("fail", "skip"):
        part = load_folder(config(tmp_path), "train")
        if policy == "fail":
            damage(tmp_path)
        dataset = TensorDataset(part, config(tmp_path, on_unreadable=policy), 0, training=True)
        held_out = TensorDataset(part, config(tmp_path, on_unreadable=policy), 0, training=False)
        if policy == "fail":
            with pytest.raises(UnreadableError, match=r"cat/005.png cannot be read as a picture .*: replace it"):
                dataset[0, 5]
            with pytest.raises(UnreadableError, match=r"cat/007.png does not exist: has the data folder moved"):
                dataset[0, 7]
            picture(5).save(tmp_path / "train" / "cat" / "007.png")
            continue
        assert [dataset[0, i][2] for i in range(8)] == [-1] * 5 + [5] + [-1] * 2
        assert dataset[0, 5][1] == part.labels_N[6]
        assert held_out[0, 5][1] == IGNORED
        assert held_out[0, 6][1] == part.labels_N[6]
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(UnreadableError, match="not one item of the data set can be read"):
        dataset[0, 3]


@pytest.mark.parametrize("workers", [0, 2])
def test_what_goes_wrong_in_loading_processes_is_one_sentence(tmp_path, workers):
    folder_of_pictures(tmp_path, ("train", "val"))
    part = load_folder(config(tmp_path), "train")
    damage(tmp_path)
    options = config(tmp_path, workers=workers)
    sampler = EpochSampler(len(part), 0, shuffle=False)
    loader = make_loader(TensorDataset(part, options, 0, training=False), sampler, 4, options, pin=False)
    with pytest.raises(UnreadableError) as raised:
        list(batches(loader))
    assert re.fullmatch(
        r"\S+cat/005.png cannot be read as a picture \(.*\): replace it, or remove it.", str(raised.value)
    )


class Dying(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        import os
        import signal

        os.kill(os.getpid(), signal.SIGKILL)


# PyTorch looks for dead processes at any signal, and again while its iterator is deleted, where nobody can catch it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loading_process_that_dies_is_said():
    with pytest.raises(
        RunError, match=r"a loading process died \(.*(killed by signal: Killed|exited unexpectedly).*lower data.workers"
    ):
        list(batches(DataLoader(Dying(), 2, num_workers=1)))


class Counting(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return index


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loading_process_that_dies_while_a_step_is_computed_is_said():
    import os
    import signal
    import time

    @loading_deaths()
    def train():
        loader = DataLoader(Counting(), 2, num_workers=1, persistent_workers=True)
        for _ in batches(loader):
            assert loader._iterator is not None
            os.kill(loader._iterator._workers[0].pid, signal.SIGKILL)
            time.sleep(10)  # the signal's handler raises in here

    with pytest.raises(RunError, match=r"a loading process died \(.*killed by signal: Killed.*lower data.workers"):
        train()


def test_an_error_inside_a_loading_process_that_lives_is_no_death():
    class Wrong(Counting):
        def __getitem__(self, index):
            raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match=r"(?s)in DataLoader worker process 0.*a mistake"):
        list(batches(DataLoader(Wrong(), 2, num_workers=1)))


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_loading_process_that_dies_while_it_hands_a_batch_over_is_said(error):
    class Torn(torch.utils.data.Dataset):
        def __getitem__(self, index):
            raise error

        def __len__(self):
            return 4

    with pytest.raises(RunError, match=r"a loading process died \(.+\): the machine may be out of memory"):
        list(batches(DataLoader(Torn(), 2)))


def test_training_skips_and_counts_unreadable_pictures(tmp_path, capsys):
    folder_of_pictures(tmp_path / "data", ("train", "val"))
    damage(tmp_path / "data")
    options = [
        "train", "--data.name", "folder", "--data.root", str(tmp_path / "data"), "--model.channels", "[4,8]",
        "--model.num_classes", "2", "--model.in_chans", "3", "--model.timesteps", "1", "--batch_size", "8",
        "--epochs", "2", "--data.workers", "1", "--accelerator", "cpu",
    ]  # fmt: skip
    assert main([*options, "--run", str(tmp_path / "fails")]) == 1
    error = capsys.readouterr().err
    assert "cat/005.png cannot be read as a picture" in error
    assert error.count("\n") == 1
    assert main([*options, "--run", str(tmp_path / "run"), "--data.on_unreadable", "skip"]) == 0
    assert "skipped" in (out := " ".join(capsys.readouterr().out.split()))
    assert "cat/005.png: it cannot be read" in out
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = rows[0].split(",").index("unreadable")
    assert all(0 < int(row.split(",")[place]) <= 2 for row in rows[1:])


def test_augmentations_of_timm_are_at_work(tmp_path):
    folder_of_pictures(tmp_path, ("train", "val"))
    part = load_folder(config(tmp_path), "train")
    seen = {}
    for name, options in {
        "none": {}, "policy": {"auto_augment": "rand-m9-mstd0.5-inc1"}, "jitter": {"color_jitter": 0.4},
        "erasing": {"erasing": 1.0}, "resized": {"crop": "resized", "crop_scale": 0.2}, "flip": {"flip": True},
    }.items():  # fmt: skip
        dataset = TensorDataset(part, config(tmp_path, **options), 0, training=True)
        items = torch.stack([dataset[1, i][0] for i in range(10)])
        assert torch.equal(items, torch.stack([dataset[1, i][0] for i in range(10)]))
        assert items.shape == (10, 3, 8, 8)
        seen[name] = items
    changed = {name: int((items != seen["none"]).flatten(1).any(1).sum()) for name, items in seen.items()}
    assert changed["none"] == 0
    assert all(changed[name] >= 8 for name in ("jitter", "erasing", "resized"))
    assert changed["policy"] >= 5
    assert 2 <= changed["flip"] <= 8


def test_the_policy_of_imagenet_runs_at_its_highest_magnitude():
    """Posterising to 0 bits, which Pillow refuses, among it."""
    about = small.Pictures(np.zeros((1, 8, 8, 3), np.uint8), np.zeros(1, np.int64), ("a",))
    about.mean, about.std = (0.5,) * 3, (0.5,) * 3
    transform = picture_transform(DataConfig(image_size=8, auto_augment="rand-m10-mstd0.5-inc1"), about, training=True)
    for seed in range(400):
        with seeded(seed):
            assert bool(torch.isfinite(transform(picture(seed))).all())


def test_evaluation_takes_the_middle():
    about = small.Pictures(np.zeros((1, 20, 30, 3), np.uint8), np.zeros(1, np.int64), ("a",))
    about.mean, about.std = (0.0,) * 3, (1.0,) * 3
    ramp = Image.fromarray(np.repeat(np.arange(30, dtype=np.uint8)[None, :, None], 20, 0).repeat(3, 2))
    tensor = picture_transform(DataConfig(image_size=10, crop_share=0.5), about, training=False)(ramp)
    assert torch.allclose(tensor[0, 0] * 255, torch.arange(10.0, 20.0))


def test_mixup_depends_on_seed_and_step_alone_and_mixes_labels():
    mix = BatchMixup(DataConfig(mixup=0.8, cutmix=1.0), classes=3, label_smoothing=0.1, seed=5)
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 1])
    before = x.clone()
    a, b, c = mix(x, y, 7, 0), mix(x, y, 7, 0), mix(x, y, 8, 0)
    assert torch.equal(x, before)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert not torch.equal(a[0], c[0])
    assert torch.allclose(a[1].sum(1), torch.ones(4))
    lam = (a[1][0, 0] - 0.1 / 3) / 0.9  # the first picture's own share; its partner is the last
    assert torch.allclose(a[1][0, 1], 0.1 / 3 + 0.9 * (1 - lam))


def test_cifar_from_folders_of_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(small, "VALIDATION", 10)
    folder_of_pictures(tmp_path, ("train", "test"))
    options = DataConfig(name="cifar-10", root=str(tmp_path), image_size=10)
    parts = {split: load(options, split, 1) for split in ("train", "val", "test")}
    assert [len(p) for p in parts.values()] == [30, 10, 40]
    assert np.array_equal(parts["test"].images[3], np.asarray(picture(3)))
    assert parts["test"].mean == pytest.approx((parts["train"].images / 255).mean((0, 1, 2)).tolist(), rel=1e-5)
    assert parts["val"].std == pytest.approx((parts["train"].images / 255).std((0, 1, 2)).tolist(), rel=1e-5)
    picture(0, (9, 9)).save(tmp_path / "test" / "cat" / "000.png")
    with pytest.raises(RunError, match="has pictures of one size, but these differ"):
        load(options, "test", 1)


def test_cifar_of_torchvision_is_opened_only_with_its_hashes(tmp_path, monkeypatch):
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    dice = np.random.default_rng(0)
    data = dice.integers(0, 256, (20, 3072), np.uint8)
    content = pickle.dumps({"data": data, "labels": [i % 10 for i in range(20)]})
    names = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    for name in ("train", "test"):
        (folder / name).write_bytes(content)
    (folder / "batches.meta").write_bytes(names)
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(CIFAR10, "train_list", [["train", md5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test", md5]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(names).hexdigest()}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(small, "VALIDATION", 10)
    options = DataConfig(name="cifar-10", root=str(tmp_path), image_size=32, download=False)
    part = load(options, "test", 1)
    assert part.classes[3] == "class 3"
    assert np.array_equal(part.images[5], data[5].reshape(3, 32, 32).transpose(1, 2, 0))
    (folder / "test").write_bytes(content[:-1] + b"x")
    with pytest.raises(RunError, match=r"cifar-10 is not in .*\(Dataset not found or corrupted"):
        load(options, "test", 1)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def tar(files: dict[str, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, content in files.items():
            add(archive, name, content)
    return out.getvalue()


def jpeg(value: int) -> bytes:
    out = io.BytesIO()
    picture(value).save(out, "JPEG")
    return out.getvalue()


WNIDS = ("n00000007", "n00000003")  # by ImageNet's numbers, which are in no order


def archives(folder: Path) -> dict[str, Path]:
    """ImageNet in small, in the form of the official archives: two classes of three, four validation pictures."""
    folder.mkdir()
    inner = {f"{w}.tar": tar({f"{w}_{i}.JPEG": jpeg(10 * n + i) for i in range(3)}) for n, w in enumerate(WNIDS)}
    fields = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(i + 1, wnid, 0) for i, wnid in enumerate(WNIDS)] + [(3, "n00000001", 2)]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=fields)})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"2\n1\n1\n2\n",
    }
    val = {f"ILSVRC2012_val_{i:08}.JPEG": jpeg(100 + i) for i in range(1, 5)}
    contents = {"train": tar(inner), "val": tar(val), "devkit": tar(kit, "w:gz")}
    paths = {part: folder / name for part, (name, _) in imagenet.ARCHIVES.items()}
    for part, path in paths.items():
        path.write_bytes(contents[part])
    return paths


def tree(root: Path) -> dict[str, bytes]:
    return {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}


def test_imagenet_is_prepared_and_resumed(tmp_path, capsys):
    archives(tmp_path / "archives")
    out = tmp_path / "out"
    call = ["data", "prepare", "imagenet", "--archives", str(tmp_path / "archives"), "--out", str(out), "--no_hashes"]
    assert main(call) == 0
    assert "6 train and 4 val pictures" in capsys.readouterr().out
    found = tree(out)
    assert len(found) == 10
    assert found["train/n00000003/n00000003_2.JPEG"] == jpeg(12)
    assert found["val/n00000003/ILSVRC2012_val_00000001.JPEG"] == jpeg(101)
    assert found["val/n00000007/ILSVRC2012_val_00000003.JPEG"] == jpeg(103)
    # As an interruption leaves it: one class half, val half, with a picture cut off.
    (out / "train" / "n00000003").rename(out / "train" / ".n00000003.part")
    (out / "train" / ".n00000003.part" / "n00000003_2.JPEG").unlink()
    (out / "val").rename(out / ".val.part")
    (out / ".val.part" / "n00000003" / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"half")
    kept = (out / "train" / "n00000007").stat().st_mtime_ns
    assert main(call) == 0
    assert tree(out) == found
    assert (out / "train" / "n00000007").stat().st_mtime_ns == kept
    assert folder_splits(DataConfig(name="imagenet", root=str(out))) == ["train", "val"]


def test_imagenet_s_archives_are_checked(tmp_path, capsys, monkeypatch):
    paths = archives(tmp_path / "a")
    call = ["data", "prepare", "imagenet", "--archives", str(tmp_path / "a"), "--out", str(tmp_path / "out")]

    def refuses(message: str, *more: str) -> None:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert main([*call, *more]) == 1
        error = capsys.readouterr().err
        assert re.search(message, error), error
        assert error.count("\n") == 1

    refuses(r"train.tar is not the official archive \(its MD5 is \w+, not 1d675b47")
    whole = paths["train"].read_bytes()
    paths["train"].write_bytes(whole[: len(whole) // 2])
    refuses("is damaged .*: fetch it again", "--no_hashes")
    for name in ("../evil.JPEG", "/evil.JPEG", "sub/evil.JPEG", ".hidden.JPEG"):
        paths["train"].write_bytes(tar({"n00000003.tar": tar({name: jpeg(0)})}))
        refuses(f"holds '{re.escape(name)}', which is no file with a plain name", "--no_hashes")
    paths["train"].write_bytes(tar({"../n00000003.tar": b""}))
    refuses("which is no class of the development kit", "--no_hashes")
    paths["train"].write_bytes(tar({"n00000003.tar": tar({"a.JPEG": jpeg(0)})}))
    refuses("has no archive for 1 of the classes, n00000007 first", "--no_hashes")
    assert not list(tmp_path.rglob("*evil*"))
    paths["train"].write_bytes(whole)
    paths["val"].write_bytes(tar({"ILSVRC2012_val_00000009.JPEG": jpeg(0)}))
    refuses("for which there is no ground truth", "--no_hashes")
    monkeypatch.setattr(imagenet.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    refuses(r"needs 0.0 GB more, but its disk has 0.0 GB free: make room", "--no_hashes")
    monkeypatch.undo()
    paths["val"].unlink()
    refuses("val.tar does not exist: --archives must name a folder with", "--no_hashes")


def test_hashes_that_fit_are_taken(tmp_path, monkeypatch):
    paths = archives(tmp_path / "a")
    known = {part: (path.name, hashlib.md5(path.read_bytes()).hexdigest()) for part, path in paths.items()}
    monkeypatch.setattr(imagenet, "ARCHIVES", known)
    monkeypatch.setattr(imagenet, "OFFICIAL_COUNTS", {"train": 6, "val": 4})
    console = Console(quiet=True)
    assert imagenet.prepare(tmp_path / "a", tmp_path / "out", console) == {"train": 6, "val": 4}
    monkeypatch.setattr(imagenet, "OFFICIAL_COUNTS", {"train": 7, "val": 4})
    with pytest.raises(RunError, match="train holds 6 pictures, not 7: remove the folder and prepare again"):
        imagenet.prepare(tmp_path / "a", tmp_path / "out", console)


def test_the_check_names_what_is_odd(tmp_path, capsys):
    folder_of_pictures(tmp_path, ("train", "val"), n=3)
    odd = tmp_path / "train" / "cat"
    picture(1, mode="L").save(odd / "grey.png")
    picture(1, mode="CMYK").save(odd / "print.jpg")
    picture(1, mode="P").save(odd / "palette.png")
    picture(1, mode="RGBA").save(odd / "clear.png")
    picture(1).save(odd / "wrong.jpg", "PNG")
    (odd / "notes.txt").write_text("x")
    (odd / "cut.png").write_bytes((odd / "000.png").read_bytes()[:80])
    (odd / "events.bin").write_bytes(b"123")
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    captured = capsys.readouterr()
    assert re.search("2 files below .* cannot be read: replace them, or train with --data.on_unreadable", captured.err)
    result = json.loads(captured.out)
    assert result["parts"]["train"] == {"classes": 2, "files": 14, "smallest_class": 3, "largest_class": 11}
    assert {Path(f).name for f in result["unreadable"]} == {"cut.png", "events.bin"}
    assert {kind: [Path(f).name for f in files] for kind, files in result["odd"].items()} == {
        "grey": ["grey.png"], "CMYK": ["print.jpg"], "palette": ["palette.png"], "transparency": ["clear.png"],
        "PNG named .jpg": ["wrong.jpg"], "neither picture nor recording": ["notes.txt"],
    }  # fmt: skip
    for name in ("cut.png", "events.bin"):
        (odd / name).unlink()
    assert main(["data", "check", str(tmp_path)]) == 0
    assert "0 unreadable files" in capsys.readouterr().out
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "nowhere is no folder" in capsys.readouterr().err


def test_real_imagenet_pictures_are_read_and_augmented(tmp_path):
    with zipfile.ZipFile(shared_data("imagenet-sample.zip")) as file:
        file.extractall(tmp_path)
    root = tmp_path / "imagenet-sample"
    shutil.copytree(root / "val", root / "train")
    options = DataConfig(
        name="imagenet", root=str(root), image_size=224, crop="resized", crop_share=0.966, flip=True, erasing=0.25,
        auto_augment="rand-m9-mstd0.5-inc1", workers=2,
    )  # fmt: skip
    for training in (True, False):
        part = load(options, "train" if training else "val", 1)
        loader = make_loader(
            TensorDataset(part, options, 0, training=training), EpochSampler(100, 0, shuffle=training), 10, options,
            pin=False,
        )  # fmt: skip
        found = [inputs for inputs, _, unreadable in batches(loader) if bool((unreadable == -1).all())]
        inputs = torch.cat(found)
        assert inputs.shape == (100, 3, 224, 224)
        assert abs(float(inputs.mean())) < 0.5
        assert 0.7 < float(inputs.std()) < 1.5


def test_the_real_tiny_imagenet_has_grey_pictures_and_fixed_parts(tmp_path):
    with tarfile.open(shared_data("tiny-imagenet-20c.tar.gz")) as file:
        file.extractall(tmp_path, filter="data")
    options = DataConfig(name="tiny-imagenet", root=str(tmp_path / "tiny-imagenet-20c"), image_size=64)
    parts = {split: load(options, split, 1) for split in ("train", "val")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 10_000, "val": 1_000}
    assert {split: part.digest()[:12] for split, part in parts.items()} == SPLITS_OF_TINY_IMAGENET
    grey = next(i for i in range(10_000) if parts["train"].name(i).endswith("n02002724_201.JPEG"))
    assert parts["train"].read(grey).mode == "RGB"


SPLITS_OF_TINY_IMAGENET = {"train": "91339adfe8eb", "val": "aeb6f04242de"}
