"""The network as timm's users expect one."""

import pytest
import torch
from test_features import plain_maps
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import nn

from conftest import gradients, worst
from trevsnn import TRevSNN, deep_supervision_loss
from trevsnn.deploy.folded import fold
from trevsnn.network.spike import spike
from trevsnn.reversible import BACKPROP_MODES


def shape_of(config):
    return (2, *((config.timesteps,) if config.input == "event" else ()), config.in_chans, 16, 16)


@pytest.mark.parametrize("mode", BACKPROP_MODES)
@pytest.mark.parametrize("options", [{}, {"encoding": "grouped"}, {"input": "event"}], ids=str)
def test_head_of_features_is_the_network_bit_for_bit(small_model, device, mode, options):
    model = small_model(backprop=mode, **options)
    x, target = torch.randn(shape_of(model.config), device=device), torch.tensor([1, 4], device=device)
    logits = model(x)
    found = model.forward_head(model.forward_features(x))
    assert torch.equal(found, logits)
    reference = gradients(model, nn.functional.cross_entropy(logits, target))
    assert worst(gradients(model, nn.functional.cross_entropy(found, target)), reference) < 1e-4
    with torch.no_grad():
        assert torch.equal(model.eval().forward_head(model.forward_features(x)), model(x))
    features = model.forward_features(x)
    divisor = model.config.timesteps if model.config.input == "event" else 1
    assert torch.equal(model.forward_head(features, pre_logits=True), spike(features / divisor).mean((2, 3)))


def test_the_head_of_all_timesteps_is_refused_one(small_model, device):
    model = small_model(input="event", readout="mean").eval()
    x = torch.rand(shape_of(model.config), device=device)
    features = model.forward_features(x)
    assert torch.equal(features, plain_maps(model, x, [3], "states")[0])
    with pytest.raises(ValueError, match="reads the states of all timesteps"):
        model.forward_head(features)


@pytest.mark.parametrize("options", [{}, {"input": "event", "readout": "mean", "links": "all"}], ids=str)
def test_intermediates(small_model, device, options):
    model = small_model(**options).eval()
    x = torch.randn(shape_of(model.config), device=device)
    states = plain_maps(model, x, range(4), "states")
    for indices, expected in ((None, [0, 1, 2, 3]), (2, [2, 3]), ((2, 0), [0, 2]), ((-1,), [3]), ((1,), [1])):
        features, maps = model.forward_intermediates(x, indices)
        assert torch.equal(features, states[3])
        assert all(map(torch.equal, maps, [states[level] for level in expected]))
        features, early = model.forward_intermediates(x, indices, stop_early=True)
        assert torch.equal(features, states[expected[-1]])
        only = model.forward_intermediates(x, indices, intermediates_only=True, norm=True)
        assert len(only) == len(early) == len(maps) == len(expected)
        assert all(map(torch.equal, chain_of(only, early), chain_of(maps, maps)))
    with pytest.raises(ValueError, match="output_fmt is 'NLC'"):
        model.forward_intermediates(x, output_fmt="NLC")


def chain_of(*lists):
    return [m for maps in lists for m in maps]


def test_stop_early_computes_less(small_model, device):
    model, ran = small_model(backprop="autograd").eval(), []
    for name, module in model.named_modules():
        if name.endswith("expand1"):
            module.register_forward_hook(lambda *_, name=name: ran.append(name.removesuffix(".expand1")))
    x = torch.randn(2, 3, 8, 8, device=device)
    model.forward_intermediates(x, (0,), stop_early=True)
    assert ran == [f"levels.{level}.steps.{t}" for t in range(4) for level in range(4 - t)]


@pytest.mark.parametrize("options", [{}, {"input": "event"}], ids=str)
def test_heads_come_and_go(small_model, device, options, tmp_path):
    model = small_model(torch.float32, **options).eval()
    model.set_slope(0.25)
    x = torch.randn(shape_of(model.config), device=device)
    states, old = model.forward_features(x), model(x)
    divisor = model.config.timesteps if options else 1
    assert model.get_classifier() is model.heads
    model.reset_classifier(0)
    pooled = spike(states / divisor).mean((2, 3))
    assert torch.equal(model(x), pooled)
    assert torch.equal(model.forward_head(states), pooled)
    assert pooled.shape == (2, model.num_features) == (2, model.head_hidden_size)
    assert [p.shape for p in model.get_classifier().parameters()] == []
    model.save_pretrained(tmp_path)
    assert torch.equal(TRevSNN.from_pretrained(tmp_path)(x.cpu()), pooled.cpu())
    with pytest.raises(ValueError, match="cannot be folded"):
        fold(model)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), states)
    torch.manual_seed(0)
    model.reset_classifier(7)
    assert model(x).shape == (2, 7)
    assert not torch.equal(model(x)[:, :5], old)
    assert (model.num_classes, model.config.num_classes, model.pretrained_cfg["num_classes"]) == (7, 7, 7)
    assert len(model(x, all_heads=True)) == len(model.heads) == (1 if options else 4)
    assert (model.heads[-1].classifier1.gain == 8).all()
    assert not any(module.training for module in model.modules())
    if not options:  # events have no leaky ReLU but the head's, which is gone
        assert model.heads[-1].activation.slope == 0.25
    model.train()
    loss = deep_supervision_loss(model(x, all_heads=True), torch.tensor([0, 6], device=device))
    assert all(grad.any() for name, grad in gradients(model, loss).items() if "heads" in name and "gain" in name)
    with pytest.raises(ValueError, match="global_pool is ''"):
        model.reset_classifier(3, "")


@pytest.mark.parametrize("options", [{}, {"encoding": "grouped"}, {"input": "event", "timesteps": 2}], ids=str)
def test_layers_of_the_learning_rate(small_model, options):
    model = small_model(**options)
    groups = param_groups_layer_decay(model, 0.05, model.no_weight_decay(), layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        encoder = name.startswith("encoder") or (".below." in name and name.startswith("levels.0."))
        layer = 0 if encoder else 5 if name.startswith("heads") else 1 + int(name.split(".")[1])
        assert scale[id(parameter)] == 0.5 ** (5 - layer), name
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.5)
    rates = {id(p): group["lr_scale"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == scale


def test_checkpointing_is_what_exact_does(small_model):
    model = small_model()
    model.set_grad_checkpointing()
    model.set_backprop("autograd")
    model.set_grad_checkpointing(False)
    with pytest.raises(ValueError, match=r"call set_backprop\('exact'\)"):
        model.set_grad_checkpointing()
