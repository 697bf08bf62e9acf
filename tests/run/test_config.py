"""A run's config: from files, recipes and options, in the order in which they stand."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentError

from trevsnn.errors import RunError, UsageError
from trevsnn.run.config import RunConfig, parse_config, recipe_config, recipe_names, to_dict, to_yaml
from trevsnn.run.folder import RunFolder


def test_what_comes_later_overrides(tmp_path):
    file = tmp_path / "my.yaml"
    file.write_text("epochs: 7\noptim:\n  lr: 0.5\n")
    recipe, config = ["--recipe", "n-mnist"], ["--config", str(file)]
    assert parse_config([*recipe, "--epochs", "3"]).epochs == 3
    assert parse_config(["--epochs", "3", *recipe]).epochs == 30
    assert parse_config(["--seed", "5", *recipe]).seed == 5  # the recipe says nothing of it
    both = parse_config([*recipe, *config])
    assert (both.epochs, both.optim.lr, both.optim.warmup_epochs, both.batch_size) == (7, 0.5, 2, 16)
    other = parse_config([*config, *recipe])
    assert (other.epochs, other.optim.lr) == (30, 0.004)
    assert parse_config([*config, "--optim.lr=0.25"]).optim.lr == 0.25


def test_the_digits_recipe_is_the_default_and_a_config_begins_from_none(tmp_path):
    assert parse_config([]) == recipe_config("digits")
    assert parse_config(["--epochs", "13"]) == replace(recipe_config("digits"), epochs=13)
    file = tmp_path / "my.yaml"
    file.write_text("epochs: 7\n")
    assert parse_config(["--config", str(file)]) == RunConfig(epochs=7)


@pytest.mark.parametrize("name", recipe_names())
def test_one_epoch_of_any_recipe_has_its_share_of_the_warm_up(name):
    whole, one = recipe_config(name), recipe_config(name, ["--epochs", "1"])
    assert one.optim.warmup_epochs == whole.optim.warmup_epochs / whole.epochs
    assert replace(one, epochs=whole.epochs, optim=whole.optim) == whole


def test_a_warm_up_that_is_given_or_published_is_not_shortened(tmp_path):
    assert recipe_config("n-mnist", ["--epochs", "3"]).optim.warmup_epochs == 0.2
    assert recipe_config("n-mnist", ["--epochs", "3", "--optim.warmup_epochs", "2"]).optim.warmup_epochs == 2
    assert recipe_config("n-mnist", ["--epochs=3", "--optim", "{warmup_epochs: 2}"]).optim.warmup_epochs == 2
    assert recipe_config("n-mnist", ["--epochs", "60"]).optim.warmup_epochs == 2
    assert recipe_config("imagenet-tiny", ["--published", "true", "--epochs", "40"]).optim.warmup_epochs == 20
    assert parse_config(["--epochs", "1", "--recipe", "n-mnist"]).optim.warmup_epochs == 2  # the recipe's epochs, too
    (tmp_path / "my.yaml").write_text("epochs: 8\noptim: {warmup_epochs: 4}\n")
    assert parse_config(["--config", str(tmp_path / "my.yaml")]).optim.warmup_epochs == 4
    assert parse_config(["--config", str(tmp_path / "my.yaml"), "--epochs", "2"]).optim.warmup_epochs == 1


def test_a_recipe_changes_its_base():
    config = recipe_config("imagenet-small", ["--accumulate", "4"])
    assert (config.model.channels, config.model.timesteps, config.model.num_classes) == ((96, 192, 384, 512), 4, 1000)
    assert (config.optim.name, config.data.crop, config.accumulate) == ("lamb", "resized", 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits", []), ("n-mnist", ["--data.name", "recordings", "--data.sensor", "[34, 30]"]), ("imagenet-tiny", [])],
)
def test_a_written_config_reads_back_the_same(name, options, tmp_path):
    config = recipe_config(name, [*options, "--optim.clip", "null"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert parse_config(["--config", str(tmp_path / "config.yaml")]) == config
    assert RunFolder.open(tmp_path).read_config() == config
    assert yaml.safe_load(to_yaml(config)) == to_dict(config)


def test_mistakes_are_told_apart(tmp_path):
    with pytest.raises(UsageError, match="there is no recipe 'letters'; there are cifar-10, "):
        recipe_config("letters")
    with pytest.raises(UsageError, match="there is no recipe '_events'"):  # a base only
        recipe_config("_events")
    for arguments in (["--epoch", "3"], ["--epochs", "x"]):
        with pytest.raises(ArgumentError):
            parse_config(arguments)
    with pytest.raises(UsageError, match=r"no\.yaml cannot be read"):
        parse_config(["--config", str(tmp_path / "no.yaml")])
    with pytest.raises(ValueError, match=r"optim\.lr is -1\.0"):
        parse_config(["--optim.lr", "-1"])


@pytest.mark.parametrize(
    "content", ["epochs: x", "epochs: 0", "epoch: 3", "- 1", "model: {kernel_size: 2}", "epochs: [1"]
)
def test_a_damaged_config_of_a_run_is_named(content, tmp_path):
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(RunError, match=r"config\.yaml is damaged \(.+\): mend it, or train anew"):
        RunFolder.open(tmp_path).read_config()


def test_run_folders_get_the_next_free_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("digits", "digits-2", "digits-3"):
        path = RunFolder.next_free("digits")
        assert path == Path("runs") / expected
        path.mkdir(parents=True)
