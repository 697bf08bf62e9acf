"""Agreement with numbers recorded from the published implementation."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import trevsnn

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [("image", "image_k3_t4"), ("event", "event_k3_t8")]

pytestmark = pytest.mark.filterwarnings("ignore:the weights hold no BatchNorm statistics")


def golden(name):
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    weights = {key.removeprefix("weight/"): t for key, t in tensors.items() if key.startswith("weight/")}
    return tensors, weights


def relative(ours, theirs):
    return float((ours.detach() - theirs).norm() / theirs.norm().clamp_min(1e-30))


@pytest.mark.parametrize("mode", ["exact", "reversible", "autograd"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_logits_and_every_gradient(device64, kind, name, mode):
    tensors, weights = golden(name)
    tensors = {key: tensor.to(device64) for key, tensor in tensors.items()}
    model = trevsnn.from_published({k: w.double() for k, w in weights.items()}, input=kind, backprop=mode)
    model = model.to(device64).train()
    names = trevsnn.published_names(model)
    x, target = tensors["input"].double(), tensors["target"]
    heads = model.forward_heads(x)
    assert len(heads) == sum(key.startswith("train_logits/") for key in tensors)
    for i, logits in enumerate(heads):
        assert relative(logits, tensors[f"train_logits/{i}"]) < 1e-9
    loss = trevsnn.deep_supervision_loss(heads, target)
    assert relative(loss, tensors["train_loss"]) < 1e-9
    loss.backward()
    compared = set()
    for ours, parameter in model.named_parameters():
        assert relative(parameter.grad, tensors[f"grad/{names[ours]}"]) < 1e-9, ours
        compared.add(names[ours])
    recorded = {key.removeprefix("grad/") for key in tensors if key.startswith("grad/")}
    assert recorded - compared == {f"subnet0.alpha{level}" for level in range(4)}  # nothing reads these

    buffers = dict(model.named_buffers())
    for ours, buffer in buffers.items():
        if not ours.endswith("num_batches_tracked"):
            buffer.copy_(tensors[f"eval_running/{names[ours]}"])
    with torch.no_grad():
        for i, logits in enumerate(model.eval().forward_heads(x)):
            assert relative(logits, tensors[f"eval_logits/{i}"]) < 1e-9


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_weights_come_back_under_their_names(kind, name):
    _, weights = golden(name)
    model = trevsnn.from_published(weights, input=kind)
    assert next(model.parameters()).dtype == torch.float32
    names = trevsnn.published_names(model)
    assert len(set(names.values())) == len(names)
    state = model.state_dict()
    assert names.keys() == state.keys()
    for ours, theirs in names.items():
        if theirs in weights:
            assert torch.equal(state[ours], weights[theirs])
    complete = {theirs: state[ours] for ours, theirs in names.items()}
    again = trevsnn.from_published(complete, input=kind)  # with statistics, shared weights under subnet0 alone
    assert all(torch.equal(a, b) for a, b in zip(again.state_dict().values(), state.values(), strict=True))


def test_parameters_alone_are_taken_with_a_warning():
    with pytest.warns(UserWarning, match="no BatchNorm statistics"):
        trevsnn.from_published(golden("image_k3_t4")[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("subnet2.level1.blocks.0.pwconv1.gain"), "lack subnet2.level1.blocks.0.pwconv1.gain"),
        (lambda w: w.update({"subnet1.level0.extra": torch.zeros(1)}), "left over subnet1.level0.extra"),
        (lambda w: w.update({"subnet1.alpha2": torch.zeros(1, 3, 1, 1)}), r"subnet1.alpha2 \(1, 3, 1, 1\) instead of"),
        (lambda w: w.pop("stem.down1.0.weight"), "they lack stem.down1.0.weight; give its state dict, and input="),
        (lambda w: w["subnet3.level2.blocks.1.pwconv2_reuse.gain"].add_(1), "all timesteps share this weight"),
        (
            lambda w: w.update({"subnet1.level1.fusion.up.encode_bn.running_mean": torch.zeros(16)}),
            "they lack subnet1.level0.fusion.up.encode_bn.running_mean, .* and [0-9]+ more",
        ),
        (lambda w: [w.pop(k) for k in list(w) if k.startswith("cls")], "they lack cls_blocks.3.classifier1.0.weight"),
    ],
)
def test_what_is_missing_or_left_over_is_named(change, message):
    weights = {key: w.clone() for key, w in golden("image_k3_t4")[1].items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        trevsnn.from_published(weights)


def test_event_weights_taken_for_image_weights_are_recognised():
    with pytest.raises(ValueError, match="not the published implementation's image weights"):
        trevsnn.from_published(golden("event_k3_t8")[1], input="image")


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("trevsnn_nano", {"encoding": "grouped"}, "no model with encoding='grouped'"),
        ("trevsnn_event_tiny", {"readout": "mean"}, "no model with .* readout='mean': it takes .* and 'last'"),
    ],
)
def test_models_without_a_published_counterpart_have_no_published_names(name, option, said):
    with pytest.raises(ValueError, match=said):
        trevsnn.published_names(trevsnn.create_model(name, **option))
