"""Trained weights for networks of other classes and input channels."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import ScaledStdConv2d

import trevsnn
from helpers import trained_like
from trevsnn import TRevSNN
from trevsnn.network.transfer import other_channels, refuse_other_networks, transfer


@settings(max_examples=25)
@given(before=st.integers(1, 5), after=st.integers(1, 5), kernel=st.sampled_from([1, 3, 7]), seed=st.integers(0, 99))
def test_a_convolution_of_other_channels_gives_of_a_grey_picture_what_the_old_one_gave(before, after, kernel, seed):
    if before * kernel == 1 or after * kernel == 1:
        return  # a single weight standardises to 0
    torch.manual_seed(seed)
    old, new = (ScaledStdConv2d(c, 6, kernel, padding=kernel // 2).double() for c in (before, after))
    with torch.no_grad():
        old.gain.uniform_(-1, 2)
        weight, gain = other_channels(old.weight, old.gain, new)
        new.weight.copy_(weight)
        new.gain.copy_(gain)
        new.bias.copy_(old.bias)  # type: ignore[union-attr]
    grey = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    # Of a 1 x 1 kernel the sum over channels may all but cancel, and what is left is rounding.
    assert torch.allclose(new(grey.expand(-1, after, -1, -1)), old(grey.expand(-1, before, -1, -1)), atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"encoding": "grouped"}, {"input": "event"}])
def test_a_pretrained_network_of_other_classes_and_channels(tmp_path, options):
    model = trained_like(**options).float().double()  # numbers that float32 has, as the new network begins in it
    model.save_pretrained(tmp_path)
    event = "input" in options
    channels = 1 if model.config.in_chans != 1 else 3
    torch.manual_seed(1)
    fresh = TRevSNN(trevsnn.TRevSNNConfig(**{**vars(model.config), "num_classes": 7, "in_chans": channels}))
    torch.manual_seed(1)
    back = TRevSNN.from_pretrained(tmp_path, num_classes=7, in_chans=channels).double()
    assert (back.config.num_classes, back.num_classes, back.config.in_chans) == (7, 7, channels)
    ours, theirs, new = back.state_dict(), model.state_dict(), fresh.state_dict()
    first = ("levels.0.steps.0.below.", "levels.0.steps.1.below.") if event else ("encoder.stem.conv.",)
    for name, value in ours.items():
        if name.startswith("heads."):
            assert torch.equal(value, new[name].double()), name
        elif not name.startswith(first):
            assert torch.equal(value, theirs[name]), name
    grey = torch.randn(2, *((2, 1) if event else (1,)), 12, 12, dtype=torch.float64)
    expand = (-1, -1) if event else (-1,)
    wide, narrow = (grey.expand(*expand, c, -1, -1) for c in (model.config.in_chans, channels))
    model.heads = back.heads  # the same heads: whatever differs is the network's
    for mine, other in zip(back.forward_time(narrow), model.forward_time(wide), strict=True):
        assert torch.allclose(mine, other, atol=1e-5)  # weights are stored in float32


def test_create_model_with_pretrained_weights_and_other_classes():
    model = trevsnn.create_model("trevsnn_digits", pretrained=True, num_classes=3).eval()
    trained = trevsnn.create_model("trevsnn_digits", pretrained=True).eval()
    x = torch.randn(4, 1, 8, 8)
    assert model(x).shape == (4, 3)
    assert torch.equal(model.levels[1].steps[1].gamma, trained.levels[1].steps[1].gamma)
    colour = trevsnn.create_model("trevsnn_digits", pretrained=True, in_chans=3).eval()
    assert torch.allclose(colour(x.expand(-1, 3, -1, -1)), trained(x), atol=1e-4)
    with pytest.raises(ValueError, match=r"timesteps is 3, but .* was trained with 2"):
        trevsnn.create_model("trevsnn_digits", pretrained=True, timesteps=3)


def test_a_network_without_heads_gives_all_else():
    trained, model = trevsnn.create_model("trevsnn_digits", pretrained=True, num_classes=0), trevsnn.create_model("trevsnn_digits")  # fmt: skip
    tensors, new_heads, adapted = transfer(trained.state_dict(), model, same_classes=True)
    assert (new_heads, adapted) == (True, False)
    own = model.state_dict()
    assert tensors.keys() == own.keys()
    assert all(torch.equal(v, (own if n.startswith("heads.") else trained.state_dict())[n]) for n, v in tensors.items())


def test_networks_that_differ_in_more_are_named():
    config = trevsnn.TRevSNNConfig(channels=(4, 8), timesteps=2)
    refuse_other_networks(config, trevsnn.TRevSNNConfig(channels=(4, 8), timesteps=2, num_classes=3, in_chans=1))
    with pytest.raises(ValueError, match=r"has channels \(4, 9\) instead of \(4, 8\), timesteps 3 instead of 2"):
        refuse_other_networks(config, trevsnn.TRevSNNConfig(channels=(4, 9), timesteps=3))
