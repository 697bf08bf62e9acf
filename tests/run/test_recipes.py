"""The shipped recipes."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from timm.data.transforms_factory import create_transform
from torchvision.transforms import v2

from trevsnn.data.config import SENSORS
from trevsnn.data.part import About
from trevsnn.data.pictures.transforms import picture_transform
from trevsnn.run.config import (
    OptimConfig,
    RunConfig,
    parse_config,
    recipe_config,
    recipe_names,
    recipe_yaml,
    to_dict,
    to_yaml,
)


def test_every_recipe_is_a_config_whose_model_fits_its_data():
    assert recipe_names() == [
        "cifar-10", "cifar10-dvs", "digits", "dvs128-gesture", "fashion-mnist", "imagenet-small", "imagenet-tiny",
        "n-mnist", "sequential-fashion-mnist", "tiny-imagenet",
    ]  # fmt: skip
    classes = {"imagenet": 1000, "dvs128-gesture": 11, "tiny-imagenet": 20}
    for name in recipe_names():
        config = recipe_config(name)
        assert name.removeprefix("sequential-").startswith(config.data.name)
        assert config.data.rows == name.startswith("sequential-")
        assert config.model.num_classes == classes.get(config.data.name, 10)
        event = config.data.name in SENSORS
        grey = config.data.name in ("digits", "fashion-mnist")
        assert config.model.input == ("event" if event or config.data.rows else "image")
        assert config.model.in_chans == (2 if event else 1 if grey else 3)
    tiny, small_ = (yaml.safe_load(recipe_yaml(f"imagenet-{size}")) for size in ("tiny", "small"))
    assert {key: value for key, value in tiny.items() if key != "model"} == {
        key: value for key, value in small_.items() if key != "model"
    }
    assert small_["model"] == {**tiny["model"], "channels": [96, 192, 384, 512], "kernel_size": 5}


@pytest.mark.parametrize("recipe", ["imagenet-tiny", "imagenet-small"])
def test_published_imagenet_differs_from_the_recipe_in_four_options(recipe):
    ours, theirs = to_dict(recipe_config(recipe)), to_dict(recipe_config(recipe, ["--published", "true"]))
    flat = [{**{f"optim.{k}": v for k, v in config.pop("optim").items()}, **config} for config in (ours, theirs)]
    assert {name: (flat[0][name], value) for name, value in flat[1].items() if flat[0][name] != value} == {
        "optim.decay_gains": (False, True), "optim.agc_heads": (False, True), "ema_warmup": (True, False),
        "start": ("derived", "published"), "published": (False, True),
    }  # fmt: skip
    expected = {
        "optim.name": "lamb", "optim.lr": 0.002, "optim.lr_per": 1024, "optim.weight_decay": 0.01, "optim.warmup_epochs": 20,
        "optim.warmup_lr": 1e-5, "optim.min_lr": 1e-6, "optim.clip": 0.02, "optim.clip_mode": "agc", "optim.trust_clip": True,
        "epochs": 300, "batch_size": 4096, "label_smoothing": 0.1, "loss": "deep_supervision", "slope_epochs": 50,
        "ema_decay": 0.9992, "sync_batchnorm": False,
    }  # fmt: skip
    assert {name: flat[1][name] for name in expected} == expected


def test_imagenet_pictures_are_augmented_and_cropped_as_published():
    data, about = recipe_config("imagenet-tiny").data, About(["0"], 3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    theirs = create_transform(
        224, is_training=True, color_jitter=0.4, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel",
        re_count=1, interpolation="bilinear",
    )  # fmt: skip
    ours = picture_transform(data, about, training=True)
    assert "".join(str(part) for part in _flat(ours)) == "".join(str(part) for part in _flat(theirs))
    evaluated = v2.Compose([v2.Resize(232), v2.CenterCrop(224), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    pixels = np.random.default_rng(0).integers(0, 256, (301, 409, 3), np.uint8)
    found = picture_transform(data, about, training=False)(Image.fromarray(pixels))
    expected = v2.functional.normalize(evaluated(Image.fromarray(pixels)), about.mean, about.std)
    assert torch.allclose(found, expected, rtol=0, atol=2e-6)  # scaling to 0..1 and normalising round in another order


def _flat(transform):
    parts = getattr(transform, "transforms", None)
    return [transform] if parts is None else [inner for part in parts for inner in _flat(part)]


@pytest.mark.parametrize(
    ("recipe", "options", "wrong"),
    [
        ("digits", [], 'optim.name "lamb", not "muon"'),
        ("n-mnist", [], 'optim.name "lamb", not "adamw"'),
        ("imagenet-tiny", ["--optim.agc_heads", "false"], "optim.agc_heads true, not false"),
        ("imagenet-tiny", ["--optim.clip", "null"], "optim.clip 0.02, not null"),
        ("imagenet-tiny", ["--optim.trust_clip", "false"], "optim.trust_clip true, not false"),
        ("imagenet-small", ["--slope_epochs", "10"], "slope_epochs 50 or 0, not 10"),
        ("imagenet-small", ["--start", "derived"], 'start "published", not "derived"'),
        ("imagenet-tiny", ["--model.links", "all"], 'model.links "adjacent", not "all"'),
        ("imagenet-tiny", ["--model.alphas", "one"], 'model.alphas "learned", not "one"'),
        ("imagenet-tiny", ["--model.encoding", "grouped"], 'model.encoding "shared", not "grouped"'),
        ("imagenet-tiny", ["--sync_batchnorm", "true"], "sync_batchnorm false, not true"),
    ],
)
def test_what_contradicts_published_is_refused(recipe, options, wrong):
    for order in ([*options, "--published", "true"], ["--published", "true", *options]):
        with pytest.raises(ValueError, match=f"needs {wrong}: leave out one of the two"):
            recipe_config(recipe, order)


def test_published_leaves_length_batch_and_machine_free_and_its_config_reads_back(tmp_path):
    options = [
        "--published",
        "true",
        "--epochs",
        "90",
        "--batch_size",
        "1024",
        "--accumulate",
        "4",
        "--slope_epochs",
        "0",
    ]
    config = recipe_config("imagenet-tiny", options)
    assert (config.epochs, config.batch_size, config.slope_epochs, config.start) == (90, 1024, 0, "published")
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert parse_config(["--config", str(tmp_path / "config.yaml")]) == config
    (tmp_path / "switch.yaml").write_text("published: true\n")
    switched = parse_config(["--recipe", "imagenet-tiny", "--config", str(tmp_path / "switch.yaml")])
    assert switched == recipe_config("imagenet-tiny", ["--published", "true"])


def test_a_config_does_not_change_the_optimizer_options_that_it_is_given():
    shared = OptimConfig()
    assert RunConfig(optim=shared).optim.decay_gains is False
    assert shared.decay_gains is None


def test_a_trust_ratio_is_lamb_s():
    with pytest.raises(ValueError, match=r"trust_clip is for optim\.name lamb; muon has no trust ratio"):
        recipe_config("digits", ["--optim.trust_clip", "true"])
