"""Every named network as timm's own tests expect one, and the pictures that timm gives it."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from timm.data import create_transform, resolve_model_data_config

import trevsnn
from trevsnn.data.pictures.transforms import picture_transform
from trevsnn.network.trunk import Trunk
from trevsnn.run.load import load_run
from trevsnn.zoo.presets import pretrained_folder

NAMES = timm.list_models("trevsnn_*")
SHIPPED = [name for name in NAMES if pretrained_folder(name.removeprefix("trevsnn_").replace("_", "-"))]


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_every_network(name):
    model = timm.create_model(name).eval()
    config, cfg = model.config, model.default_cfg
    weights = model.state_dict()
    first = (cfg["first_conv"],) if isinstance(cfg["first_conv"], str) else cfg["first_conv"]
    assert all(f"{layer}.weight" in weights for layer in (*first, *cfg["classifier"]))
    assert cfg["num_classes"] == model.num_classes == config.num_classes
    assert cfg["input_size"][0] == config.in_chans
    side = cfg["input_size"][1] if cfg["input_size"][1] < 40 else 32
    frames = (config.timesteps,) if config.input == "event" else ()
    x = torch.rand(1, *frames, config.in_chans, side, side)
    assert model(x).shape == (1, config.num_classes)
    features, maps = model.forward_intermediates(x)
    info = model.feature_info
    assert len(maps) == len(info) == len(config.channels)
    assert torch.equal(maps[-1], features)
    for place, level in enumerate(maps):
        assert level.shape[1] == info[place]["num_chs"]
        assert level.shape[2] == -(-side // info[place]["reduction"])
        assert model.get_submodule(info[place]["module"]) is model.levels[place]
    assert features.shape[1] == model.num_features
    assert cfg["pool_size"] == (-(-cfg["input_size"][1] // info[-1]["reduction"]),) * 2
    net = timm.create_model(name, features_only=True, out_indices=(0, -1)).eval()
    net.load_state_dict(weights)
    assert all(map(torch.equal, net(x), (maps[0], maps[-1])))
    assert net.feature_info.channels() == [config.channels[0], config.channels[-1]]
    model.reset_classifier(0)
    assert model(x).shape == (1, model.head_hidden_size)
    model.reset_classifier(0, "")
    assert torch.equal(model(x), features)


@torch.no_grad()
def test_classes_and_channels_of_one_s_own():
    model = timm.create_model("trevsnn_tiny", num_classes=7, in_chans=1).eval()
    assert model(torch.rand(1, 1, 32, 32)).shape == (1, 7)
    assert model.pretrained_cfg["input_size"] == (1, 224, 224)
    none = timm.create_model("trevsnn_nano", num_classes=0).eval()
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(none(x), none.forward_head(none.forward_features(x), pre_logits=True))
    for maker in (timm.create_model, trevsnn.create_model):
        spikes = maker("trevsnn_nano", features_only=True, out_indices=(0,), output="spikes").eval()(x)
        assert [sorted(maps.unique().tolist()) for maps in spikes] == [[0.0, 1.0]]


def test_what_timm_s_training_script_hands_over():
    model = timm.create_model(
        "trevsnn_nano", pretrained=False, in_chans=3, num_classes=None, drop_rate=0.0, drop_path_rate=None, global_pool=None,
        bn_momentum=None, bn_eps=None, scriptable=False, checkpoint_path="",
    )  # fmt: skip
    assert model.config == trevsnn.create_model("trevsnn_nano").config
    with pytest.raises(ValueError, match="trevsnn_nano has no option drop_rate"):
        timm.create_model("trevsnn_nano", drop_rate=0.1)


@pytest.mark.parametrize("name", SHIPPED)
def test_timm_gives_shipped_networks_what_they_were_trained_with(name):
    """The same numbers as the package's own transform in evaluation, on real pictures of several sizes."""
    model = timm.create_model(name, pretrained=True, features_only=True)
    assert isinstance(model, Trunk)
    _, config, about, _ = load_run(pretrained_folder(name.removeprefix("trevsnn_").replace("_", "-")), "best")
    data = resolve_model_data_config(model)
    assert data["input_size"] == (about.channels, config.data.image_size, config.data.image_size)
    if config.model.input == "event":
        assert (data["mean"], data["std"]) == ((0.0, 0.0), (1.0, 1.0))
        return
    theirs, ours = create_transform(**data), picture_transform(config.data, about, training=False)
    photographs = load_sample_images().images
    digit = load_digits().images[0]
    arrays = [*photographs, photographs[0][:33, :50], np.uint8(digit * 15.9)]
    for array in arrays:
        picture = Image.fromarray(array).convert("L" if about.channels == 1 else "RGB")
        assert torch.equal(theirs(picture), ours(picture))
    classifier = timm.create_model(name, pretrained=True)
    assert resolve_model_data_config(classifier) == data


def test_options_of_features_without_features_only():
    with pytest.raises(ValueError, match="set features_only=True"):
        trevsnn.create_model("trevsnn_nano", out_indices=(0,))
