"""Networks of which the encoder and the lowest levels are not trained."""

import pytest
import torch

import trevsnn
from conftest import gradients, worst
from helpers import loss_of
from trevsnn.network.transform import Transform


def pass_by_hand(model, x, frozen):
    """The recurrence in plain operations, frozen levels without a graph; the logits of all heads."""
    config, sees = model.config, model._sees
    with torch.set_grad_enabled(frozen == 0):
        encoded = model.encoder(x) if config.input == "image" else None
    states = None
    read = []
    for t in range(config.timesteps):
        current = []
        for level, module in enumerate(model.levels):
            below = (encoded if encoded is not None else x[:, t]) if level == 0 else current[level - 1]
            above = [None if states is None or i >= len(model.levels) else states[i] for i in sees[level].upper]
            with torch.set_grad_enabled(level >= frozen):
                state = Transform(module.steps[t], module.shared, None, "eager", "F")(below, *above)
                if states is not None:
                    alpha = module.alpha(t)
                    state = (states[level] if alpha is None else alpha * states[level]) + state
            current.append(state)
        states = current
        read += [(i, head.pool(states[-1])) for i, (head, ts) in enumerate(zip(model.heads, model.head_timesteps(), strict=True)) if t in ts]  # fmt: skip
    return [
        torch.stack([head(pooled) for i, pooled in read if i == place]).mean(0)
        for place, head in enumerate(model.heads)
    ]


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
@pytest.mark.parametrize(
    ("frozen", "options"),
    [
        (1, {"timesteps": 4}),
        (2, {"timesteps": 4, "encoding": "grouped", "links": "all"}),
        (3, {"timesteps": 3, "alphas": "one"}),
        (4, {"timesteps": 2}),
        (2, {"timesteps": 4, "input": "event", "readout": "mean"}),
    ],
)
def test_gradients_are_those_of_frozen_levels_computed_without_a_graph(small_model, frozen, options, mode):
    model = small_model(torch.float64, alpha=0.9, backprop=mode, **options)
    device = next(model.parameters()).device
    event = "input" in options
    x = torch.randn((4, options["timesteps"], 2, 16, 16) if event else (4, 3, 16, 16), dtype=torch.float64).to(device)
    target = torch.arange(4, device=device)
    model.freeze(frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reference = gradients(model, trevsnn.deep_supervision_loss(pass_by_hand(model, x, frozen), target))
    found = gradients(model, loss_of(model, x, target))
    untrained = ["encoder.", *(f"levels.{level}." for level in range(frozen))]
    assert not any(name.startswith(tuple(untrained)) for name in found)
    assert worst(found, reference) < 1e-9
    after = model.state_dict()
    assert all(torch.equal(after[n], v) for n, v in before.items() if n.startswith(tuple(untrained)))
    assert (
        any(not torch.equal(after[n], v) for n, v in before.items()) or frozen == 4
    )  # running statistics of the others


def test_with_one_timestep_nothing_is_left_out(small_model):
    model = small_model(torch.float64, timesteps=1)
    x, target = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.arange(4)
    x, target = x.to(next(model.parameters()).device), target.to(next(model.parameters()).device)
    for level in model.levels[:2]:  # in evaluation mode, as frozen ones are
        level.eval()
    model.encoder.eval()
    whole = gradients(model, loss_of(model, x, target))
    model.freeze(2)
    part = gradients(model, loss_of(model, x, target))
    assert 0 < len(part) < len(whole)
    assert worst(part, {name: whole[name] for name in part}) < 1e-12


def test_what_a_frozen_network_keeps_is_what_its_trained_levels_need(small_model, device):
    from test_model_memory import live_after_forward

    x = torch.randn(4, 3, 32, 32, device=device)
    found = {}
    for frozen in (0, 1, 2, 3):
        model = small_model(timesteps=8, alpha=1.0)
        with torch.no_grad():
            for level in model.levels:
                for alpha in level.alphas:
                    alpha.fill_(1.0)
        model.freeze(frozen)
        found[frozen], heads = live_after_forward(model, x)
        sum(h.square().mean() for h in heads).backward()
    pixels = [32**2 * 4, 16**2 * 8, 8**2 * 8, 8**2 * 12]  # of a level, for an item
    codes = [8 * 4 * n // 4 for n in pixels]  # 8 timesteps, 4 items, 2 bits
    assert found[0] - found[1] > 0
    assert found[1] - found[2] > codes[0]  # its spikes, and its float state
    assert found[2] - found[3] > codes[1]


def test_frozen_parts_stay_as_they_are_in_training_and_can_be_trained_again(small_model):
    model = small_model(timesteps=2)
    model.freeze(2)
    assert model.frozen == 2
    assert not model.train().levels[1].training
    assert model.levels[2].training
    assert not model.encoder.training
    model.freeze(1)
    assert model.levels[1].training
    assert all(p.requires_grad for p in model.levels[1].parameters())
    model.freeze(0)
    assert all(module.training for module in model.modules())
    with pytest.raises(ValueError, match="levels to freeze are 5; the network has 4"):
        model.freeze(5)


def test_a_frozen_network_is_exported_as_it_is(small_model):
    model = small_model(timesteps=2).cpu().eval()
    x = torch.randn(2, 3, 16, 16)
    wanted = model(x)
    model.freeze(2)
    assert torch.equal(model(x), wanted)
    program = torch.export.export(model, (x,))
    assert torch.allclose(program.module()(x), wanted, atol=1e-5)
