"""The largest batch that fits, beside what steps on real tensors take."""

import dataclasses
import json

import pytest
import torch
from timm.utils.model_ema import ModelEmaV3

from trevsnn.cli.main import main
from trevsnn.errors import UsageError
from trevsnn.measure.memory import footprint
from trevsnn.measure.plan import CUDA_FIXED, _beyond, _key, bytes_of, plan_batch
from trevsnn.measure.tracker import LiveStorage
from trevsnn.measure.training import ConfiguredStep, count_standing, count_step, for_device
from trevsnn.run.config import RunConfig, recipe_config
from trevsnn.train.optim import build_optimizer


def config(*options: str, recipe: str = "digits") -> RunConfig:
    return recipe_config(
        recipe, ["--model.channels", "[8,8]", "--model.timesteps", "2", "--ema_decay", "0.9", *options]
    )


def bytes_in(tensors: object) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def really(of: RunConfig, batch: int) -> int:
    """Bytes of parameters, buffers, optimizer, average, and the peak of a whole step with real tensors."""
    step = ConfiguredStep.of(of, batch)
    model = step.build()
    optimizer = build_optimizer(model, of)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    average = ModelEmaV3(model, 0.9).module
    state = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    standing = [*model.parameters(), *model.buffers(), *average.parameters(), *average.buffers(), *state]
    x, target = step.inputs()
    with LiveStorage(standing) as tracker:
        for tensor in (x, target):
            tracker.add(tensor, "input")
        step.loss(model, x, target).backward()
        optimizer.step()
    return bytes_in(standing) + sum(tracker.peak().values())


@pytest.mark.parametrize(
    ("backprop", "precision"),
    [("exact", "32-true"), ("exact", "bf16-mixed"), ("reversible", "32-true"), ("autograd", "bf16-mixed")],
)
def test_the_batch_fits_and_one_item_more_does_not(backprop, precision):
    of = config("--model.backprop", backprop, "--precision", precision)
    plan = plan_batch(of, 1_000_000, cache=None)
    assert plan.too_large == plan.batch + 1
    assert plan.batch_size == plan.batch
    assert plan.total == sum(plan.parts.values())
    fits, does_not = really(of, plan.batch), really(of, plan.batch + 1)
    assert fits <= 1_000_000 < does_not
    # A step that goes on to the optimizer has its inputs and gradients there at the same time, after the peak.
    assert plan.total == pytest.approx(fits, rel=0.005)


@pytest.mark.parametrize("name", ["adamw", "lamb", "muon"])
def test_what_stands_in_memory_is_that_of_the_real_optimizer(name):
    of = config("--optim.name", name)
    found = count_standing(of)
    model = ConfiguredStep.of(of, 2).build()
    optimizer = build_optimizer(model, of)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    known = [*model.parameters(), *model.buffers(), *(p.grad for p in model.parameters())]
    with LiveStorage(known) as tracker:
        optimizer.step()
    state = [t for s in optimizer.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
    assert found["optimizer"] == bytes_in(state)
    assert found["optimizer's step"] == sum(tracker.peak().values()) - bytes_in(state)
    assert found["gradients"] == found["parameters"] == bytes_in(model.parameters())
    assert found["averaged weights"] == bytes_in(ModelEmaV3(model, 0.9).module.state_dict().values())
    moments = found["optimizer"] / found["parameters"]
    assert 1 < moments < 1.8 if name == "muon" else moments == pytest.approx(2, rel=0.01)
    assert count_standing(dataclasses.replace(of, ema_decay=None))["averaged weights"] == 0


@pytest.mark.parametrize(
    "options", [[], ["--loss", "temporal"], ["--model.backprop", "autograd"], ["--init", "digits", "--freeze", "1"]]
)
def test_a_step_without_data_is_one_with_data(options):
    of = for_device(config(*options), False)
    real, fake = count_step(of, 5, fake=False), count_step(of, 5)
    assert real == fake
    step = ConfiguredStep.of(of, 5)
    model = step.build()
    x, target = step.inputs()
    peak = footprint(model, [x, target], lambda: step.loss(model, x, target)).peak
    if not options:
        assert sum(real["activations"].values()) == sum(peak.values())


def test_frozen_levels_take_no_gradients_and_no_activations():
    whole, frozen = config(), config("--init", "digits", "--freeze", "1")
    model = ConfiguredStep.of(frozen, 2).build()
    trained = bytes_in(p for p in model.parameters() if p.requires_grad)
    assert count_standing(frozen)["gradients"] == trained < count_standing(whole)["gradients"]
    steps = [count_step(for_device(of, False), 4)["activations"] for of in (whole, frozen)]
    assert sum(steps[1].values()) < sum(steps[0].values())
    assert _key(whole, "cpu") != _key(frozen, "cpu")


def test_rows_of_pictures_and_frames_are_as_training_sees_them():
    rows = ConfiguredStep.of(recipe_config("sequential-fashion-mnist"), 3).inputs()[0]
    assert rows.shape == (3, recipe_config("sequential-fashion-mnist").model.timesteps, 1, 1, 28)
    frames = ConfiguredStep.of(recipe_config("n-mnist"), 3).inputs()[0]
    size = recipe_config("n-mnist").data.image_size
    assert frames.shape == (3, recipe_config("n-mnist").model.timesteps, 2, size, size)


def test_processes_and_parts_hold_all_gradients(tmp_path):
    of = config()
    alone = plan_batch(of, 1_000_000, cache=tmp_path)
    for options, processes in (({}, 2), ({"accumulate": 2}, 1)):
        plan = plan_batch(dataclasses.replace(of, **options), 1_000_000, processes=processes, cache=tmp_path)
        assert plan.batch_size == 2 * plan.batch
        assert plan.parts["gradients"] == plan.parts["parameters"]
        assert plan.batch <= alone.batch
        assert plan.total <= 1_000_000


def test_pairs_of_items_make_the_batch_even(tmp_path):
    of = config()
    of = dataclasses.replace(of, data=dataclasses.replace(of.data, mixup=0.2))
    for nbytes in (1_000_000, 1_030_000):
        plan = plan_batch(of, nbytes, cache=tmp_path)
        assert plan.batch % 2 == 0
        assert plan.too_large == plan.batch + 2


def test_what_was_counted_is_known_the_next_time_and_damage_is_counted_again(tmp_path):
    of, counted = config(), []
    first = plan_batch(of, 1_000_000, cache=tmp_path, tell=counted.append)
    assert sorted(counted) == list(first.counted)
    counted.clear()
    assert plan_batch(of, 1_000_000, cache=tmp_path, tell=counted.append) == first
    assert counted == []
    others = [("--precision", "bf16-mixed"), ("--optim.name", "lamb"), ("--data.image_size", "9")]
    assert len({_key(of, "cpu"), _key(of, "cuda"), *(_key(config(*options), "cpu") for options in others)}) == 5
    for file in (tmp_path / "plans").iterdir():
        file.write_text("{")
    assert plan_batch(of, 1_000_000, cache=tmp_path, tell=counted.append) == first
    assert sorted(counted) == list(first.counted)
    (tmp_path / "file").write_text("")
    assert plan_batch(of, 1_000_000, cache=tmp_path / "file") == first


def test_the_line_goes_on_where_steps_are_not_counted():
    batch, parts = _beyond(lambda b: {"standing": 100.0, "states": 10.0 * b}, 10_005, 2, 64)
    assert (batch, parts) == (990, {"standing": 100.0, "states": 9900.0})
    batch, parts = _beyond(lambda b: {"states": 10.0 * b}, 645, 1, 64)
    assert (batch, parts) == (64, {"states": 640.0})


def test_the_line_is_close():
    of = for_device(config("--model.slice_bytes", "8192"), False)
    sums = {b: sum(count_step(of, b, fake=False)["alone"].values()) for b in (16, 32, 96)}
    assert sums[96] == pytest.approx(sums[32] + (96 - 32) * (sums[32] - sums[16]) / 16, rel=0.01)


def test_on_cuda_there_is_an_allowance(tmp_path):
    of = config("--precision", "bf16-mixed")
    plan = plan_batch(of, CUDA_FIXED + 400_000, device="cuda", cache=tmp_path)
    activations = sum(plan.parts[name] for name in plan.parts if name in ("input", "states", "codes", "adjoints", "encoder", "blocks", "heads"))  # fmt: skip
    assert plan.parts["workspace"] == pytest.approx(CUDA_FIXED + 0.02 * activations)
    assert plan.total <= CUDA_FIXED + 400_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cuda_graph": True}, "cuda_graph keeps a graph's own memory"),
        ({"keep": "30%"}, "model.keep is '30%', a share of a card that need not be here: give it in GB"),
    ],
)
def test_what_cannot_be_counted_is_refused(change, message):
    of = config()
    keep = change.pop("keep", None)
    of = dataclasses.replace(of, model=dataclasses.replace(of.model, keep=keep), **change)
    with pytest.raises(UsageError, match=message):
        plan_batch(of, 10**9, device="cuda", cache=None)


def test_amounts():
    assert [bytes_of(text) for text in ("24GB", "1.5 MiB", "300MB")] == [24 * 10**9, 3 * 2**19, 3 * 10**8]
    for text in ("24", "24gb", "-1GB", "0GB", "GB"):
        with pytest.raises(UsageError, match=r"give an amount of memory, such as 24GB\. Units are MB, GB, MiB, GiB"):
            bytes_of(text)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A config file, and a cache of its own."""
    monkeypatch.setitem(plan_batch.__kwdefaults__, "cache", tmp_path / "cache")
    file = tmp_path / "small.yaml"
    file.write_text("model: {channels: [8, 8], timesteps: 2, num_classes: 10, in_chans: 1, encoder_stride: 1}\n")
    return str(file)


def test_the_command(small, capsys):
    assert main(["measure", "memory", "--config", small, "--fits", "1MB", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"] <= 1_000_000
    assert found["too_large"] == found["batch"] + 1
    assert main(["measure", "memory", "--config", small, "--fits", "1MB", "--processes", "2"]) == 0
    out = capsys.readouterr().out
    assert "per process, of 2; --batch_size" in out
    for part in ("parameters", "gradients", "optimizer", "buffers", "states", "sum"):
        assert part in out
    assert main(["measure", "memory", "--config", small, "--modes", "autograd", "--fits", "1MiB"]) == 0
    assert "The largest batch that fits into 1MiB" in capsys.readouterr().out


def test_a_config_says_what_is_measured(small, capsys):
    assert main(["measure", "memory", "--config", small, "--modes", "exact", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert (row["timesteps"], row["batch"], row["size"]) == (2, 64, 8)
    assert main(["measure", "speed", "--config", small, "--modes", "exact", "--repeats", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["timesteps"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fits", "300KB"], "Units are MB, GB, MiB, GiB."),
        (["--config", "SMALL", "--recipe", "digits"], "--config and --recipe each name a config: give one of them"),
        (["--config", "SMALL", "--size", "32"], "the config says it already: leave out --size"),
        (["--fits", "1GB", "--timesteps", "2", "4"], "give one of --modes and one of --timesteps"),
        (["--fits", "1GB", "--modes", "exact", "autograd"], "give one of --modes and one of --timesteps"),
        (["--processes", "2"], "--processes goes with --fits"),
        (["--fits", "1GB", "--fake"], "--fake and --picture are not for --fits"),
        (["--config", "SMALL", "--fits", "0.1MB"], "a step of 2 items, the fewest that a process can take, needs"),
        (["--recipe", "nothing"], "there is no recipe 'nothing'"),
    ],
)
def test_wrong_usage(options, message, small, capsys):
    assert main(["measure", "memory", *(small if option == "SMALL" else option for option in options)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
