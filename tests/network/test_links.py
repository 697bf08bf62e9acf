"""Links from every level above, and a recurrence without alphas."""

import pytest
import torch

import trevsnn
from conftest import gradients, worst
from helpers import loss_of
from trevsnn import TRevSNNConfig
from trevsnn.measure.memory import measure_memory
from trevsnn.measure.step import TrainingStep
from trevsnn.network.model import TRevSNN
from trevsnn.network.transform import sees_of
from trevsnn.reversible import unroll
from trevsnn.zoo.presets import PRESETS

OPTIONS = [{"links": "all"}, {"alphas": "one"}, {"links": "all", "alphas": "one"}]
SMALL = TRevSNNConfig(channels=(4, 8, 8, 12), num_classes=5, in_chans=1, encoder_stride=1)
ELEMENTS = 4 * 16**2 + 8 * 8**2 + 8 * 4**2 + 12 * 4**2  # of the states of one 16 x 16 picture


def by_hand(model, x):
    """The last states, with every sum and every upsampled pixel written out."""
    levels, encoded, before, now = list(model.levels), model.encoder(x), None, []
    for t in range(model.config.timesteps):
        now = []
        for level, module in enumerate(levels):
            step = module.steps[t]
            v = step.below(now[level - 1] if level else encoded)
            links = [] if before is None or step.above is None else [step.above, *step.further]
            for i, link in enumerate(links, start=level + 1):
                maps = link.bn(link.conv((before[i] >= 0.5).double()))
                rows, columns = (
                    [place * few // many for place in range(many)]
                    for few, many in zip(maps.shape[2:], v.shape[2:], strict=True)
                )
                v = v + maps[:, :, rows][..., columns]
            state = step.blocks(v, module.shared)
            if before is not None:
                alpha = module.alphas[t - 1] if model.config.alphas == "learned" else 1
                state = state + alpha * before[level]
            now.append(state)
        before = now
    return now


@pytest.mark.parametrize("size", [(16, 16), (9, 10), (1, 6)])  # the top level's: 4 x 4, 3 x 3, 1 x 2
@pytest.mark.parametrize("options", OPTIONS)
def test_a_level_is_given_the_sum_over_all_levels_above(small_model, device, size, options):
    model = small_model(torch.float64, in_chans=1, timesteps=3, **options).eval()
    x = torch.randn(3, 1, *size, dtype=torch.float64).to(device)
    head = model.heads[-1]
    with torch.no_grad():
        states = by_hand(model, x)
        *_, found = unroll(*model._recurrence(x), sees=sees_of(model.config))
        for state, wanted in zip(found, states, strict=True):
            torch.testing.assert_close(state, wanted, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(model(x), head(head.pool(states[-1])), rtol=1e-12, atol=1e-12)
        further = [link for level in model.levels for step in level.steps for link in step.further]
        assert len(further) == (2 * 3 if "links" in options else 0)
        for link in further:
            link.bn.weight.zero_()
            link.bn.bias.zero_()
        *_, found = unroll(*model._recurrence(x), sees=sees_of(model.config))
        assert torch.allclose(found[0], states[0]) == (not further)  # they matter


@pytest.mark.parametrize("mode", ["exact", "reversible"])
@pytest.mark.parametrize("options", OPTIONS)
def test_gradients_are_those_of_autograd_from_the_same_spikes(small_model, device, mode, options):
    model = small_model(torch.float64, alpha=0.8, in_chans=1, timesteps=5, slice_bytes=2 * 16 * 14 * 18 * 8, **options)
    x, target = torch.randn(5, 1, 14, 18, dtype=torch.float64).to(device), torch.randint(5, (5,)).to(device)
    found, losses, buffers = {}, {}, {}
    for chosen in ("autograd", mode):
        model.set_backprop(chosen)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
        losses[chosen] = loss_of(model, x, target)
        found[chosen] = gradients(model, losses[chosen])
        buffers[chosen] = [buffer.clone() for buffer in model.buffers()]
    assert torch.equal(losses[mode], losses["autograd"])
    assert worst(found[mode], found["autograd"]) < 1e-12
    assert all(map(torch.equal, buffers[mode], buffers["autograd"]))
    further = [name for name in found[mode] if ".further." in name]
    assert len(further) == (4 * 3 * 3 if "links" in options else 0)  # of each link a weight, and BatchNorm's two
    assert all(found[mode][name].norm() > 0 for name in further)


@pytest.mark.parametrize("options", OPTIONS)
def test_rates_are_of_the_same_pass(small_model, device, options):
    model = small_model(in_chans=1, **options).eval()
    x = torch.randn(2, 1, 9, 10).to(device)
    logits, rates = model.forward_with_rates(x)
    assert torch.equal(logits, model(x))
    assert rates.states_LT.shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "further", "alphas"),
    [
        ("trevsnn_tiny", 271_872, 2_496),
        ("trevsnn_small", 555_264, 3_552),
        ("trevsnn_event_tiny", 202_496, 3_360),
    ],
)
def test_how_many_parameters_the_options_add_and_take(name, further, alphas):
    with torch.device("meta"):
        models = [TRevSNN(TRevSNNConfig(**PRESETS[name], **options)) for options in [{}, *OPTIONS]]
    plain, linked, bare, both = (sum(p.numel() for p in model.parameters()) for model in models)
    assert (linked - plain, plain - bare, both - plain) == (further, alphas, further - alphas)
    channels, later = PRESETS[name]["channels"], PRESETS[name]["timesteps"] - 1
    sums = [c * (upper + 2) for level, c in enumerate(channels) for upper in channels[level + 2 :]]
    assert (further, alphas) == (later * sum(sums), later * sum(channels))
    names, names_of_all, names_without = (set(model.state_dict()) for model in models[:3])
    assert {name.split(".")[4] for name in names_of_all - names} == {"further"}
    assert names < names_of_all
    assert {name.split(".")[2] for name in names - names_without} == {"alphas"}


def test_with_two_levels_all_links_are_the_adjacent_ones(small_model, device):
    x = torch.randn(2, 1, 8, 8).to(device)
    adjacent, every = (small_model(channels=(4, 6), in_chans=1, links=links) for links in ("adjacent", "all"))
    assert torch.equal(adjacent(x), every(x))


def test_without_alphas_inverting_amplifies_no_rounding_error(small_model, device):
    """In float32 up to T = 84, where with alphas of 0.5 it is refused from T = 7 on."""
    small = {"channels": (4, 6), "in_chans": 1, "alphas": "one", "backprop": "reversible"}
    x, target = torch.randn(2, 1, 4, 4).to(device), torch.tensor([0, 1]).to(device)
    loss_of(small_model(timesteps=84, **small), x, target).backward()
    with pytest.raises(trevsnn.ReversibilityError, match=r"down to 1 each time"):
        loss_of(small_model(timesteps=85, **small), x, target).backward()
    model = small_model(torch.float64, timesteps=16, **small)
    found = {}
    for mode in ("autograd", "reversible"):
        model.set_backprop(mode)
        found[mode] = gradients(model, loss_of(model, x.double(), target))
    assert worst(found["reversible"], found["autograd"]) < 1e-11


def test_memory_without_alphas_is_codes_alone_and_links_keep_their_statistics():
    step, timesteps = TrainingStep(batch=4, size=16), 12
    kept = {}
    for options in ({}, *OPTIONS):
        config = TRevSNNConfig(**{**vars(SMALL), "timesteps": timesteps, **options})
        kept[tuple(options)] = measure_memory(config, step)["after_forward"]
    plain, linked, bare, both = kept.values()
    assert plain["anchors"] > 0
    assert plain["states"] >= 4 * ELEMENTS
    for found in (bare, both):
        assert found["anchors"] == 0
        assert found["states"] < 16
        # After the last timestep too: the top level's is read by the last head, the others are seen by the level above.
        assert found["codes"] == timesteps * ELEMENTS / 4
    assert linked["codes"] == plain["codes"]  # the same spikes go to more levels
    further = 2 * 4 * (timesteps - 1) * (2 * 4 + 8) / 4  # mean and variance: two links to level 0 and one to level 1
    assert linked["blocks"] - plain["blocks"] == both["blocks"] - bare["blocks"] == further


@pytest.mark.filterwarnings("ignore")
def test_both_compile_to_one_graph(small_model, device):
    model = small_model(channels=(4, 6, 8), timesteps=2, in_chans=1, **OPTIONS[2]).eval()
    x = torch.randn(3, 1, 8, 8).to(device)
    torch._dynamo.reset()
    with torch.no_grad():
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert torch.allclose(compiled(x), model(x), rtol=1e-5, atol=1e-6)


def test_a_model_of_these_options_is_saved_with_them(tmp_path):
    model = trevsnn.create_model("trevsnn_nano", links="all", alphas="one").eval()
    model.save_pretrained(tmp_path)
    back = TRevSNN.from_pretrained(tmp_path)
    assert (back.config.links, back.config.alphas) == ("all", "one")
    x = torch.randn(1, 3, 8, 8)
    assert torch.equal(back(x), model(x))


@pytest.mark.parametrize("options", OPTIONS)
def test_the_published_implementation_has_none_of_it(options):
    model = trevsnn.create_model("trevsnn_tiny", **options)
    with pytest.raises(
        ValueError, match=r"no model with .*links='.*', alphas='.*' and readout='last': it takes 'shared', 4, 4"
    ) as said:
        trevsnn.published_names(model)
    assert "\n" not in str(said.value)
