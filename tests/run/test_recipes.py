"""The shipped recipes."""

import yaml

from trevsnn.data.events.sets import SENSORS
from trevsnn.run.config import recipe_config, recipe_names, recipe_yaml


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
