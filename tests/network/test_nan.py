"""NaN, in a weight or in a picture, comes out as NaN: a confident class would be a lie."""

import copy

import pytest
import torch

import trevsnn
from helpers import example, trained_like
from trevsnn.backprop import BACKPROP_MODES


@pytest.fixture(scope="module")
def model(device64: torch.device) -> trevsnn.TRevSNN:
    return trained_like(encoding="grouped", channels=(4, 6)).to(device64)


def answers(model: trevsnn.TRevSNN, x: torch.Tensor) -> list[torch.Tensor]:
    """The last head's logits (B, K) in every mode, and without gradients."""
    logits = []
    for mode in BACKPROP_MODES:
        model.set_backprop(mode)
        logits.append(model(x).detach())
    with torch.no_grad():
        return [*logits, model(x)]


@pytest.mark.parametrize("training", [False, True])
def test_of_any_weight(model, device64, training):
    x = example(model.config, batch=3).to(device64)
    parts = ("encoder", "levels", "heads.3")
    names = [n for n, p in model.named_parameters() if n.startswith(parts) and "alphas" not in n]
    assert len(names) == 98
    broken, whole = copy.deepcopy(model).train(training), model.state_dict()
    for name in names:
        broken.load_state_dict(whole)
        with torch.no_grad():
            broken.get_parameter(name).view(-1)[-1] = torch.nan
        for logits in answers(broken, x):
            concerned = logits[:, -1] if "classifier2" in name else logits  # its last row is the last class's
            assert concerned.isnan().all(), name


def test_of_a_picture(model, device64):
    x = example(model.config, batch=4).to(device64)
    expected = answers(model, x)
    x[2, 0, 5, 5] = torch.nan
    others = [0, 1, 3]
    for logits, before in zip(answers(model, x), expected, strict=True):
        assert logits[2].isnan().all()
        assert torch.equal(logits[others], before[others])


def test_of_a_frame(device64):
    model = trained_like(input="event", in_chans=2).to(device64)
    x = example(model.config, batch=3).to(device64)
    expected = answers(model, x)
    x[1, 0, 0, 0, 0] = torch.nan
    for logits, before in zip(answers(model, x), expected, strict=True):
        assert logits[1].isnan().all()
        assert torch.equal(logits[[0, 2]], before[[0, 2]])


def test_an_infinite_weight_is_a_number(model, device64):
    """A bias that keeps a hidden neuron silent, or firing, for good."""
    x = example(model.config, batch=3).to(device64)
    large, infinite = copy.deepcopy(model), copy.deepcopy(model)
    for bias in (0, 1):
        for network, value in ((large, 1e6), (infinite, torch.inf)):
            with torch.no_grad():
                network.levels[0].steps[1].expand2.pw1.bias[bias] = value if bias else -value
    assert all(map(torch.equal, answers(large, x), answers(infinite, x)))
