"""Named networks."""

import pytest
import timm

import trevsnn
from trevsnn import TRevSNNConfig

PARAMETERS = {
    "trevsnn_tiny": 17_203_024, "trevsnn_small": 32_330_128, "trevsnn_event_tiny": 10_220_165,
    "trevsnn_digits": 467_256, "trevsnn_fashion_mnist": 1_120_296, "trevsnn_n_mnist": 914_380, "trevsnn_nano": 2_089_448,
    "trevsnn_tiny_imagenet": 1_671_000, "trevsnn_cifar_10": 1_530_904,
}  # fmt: skip


@pytest.mark.parametrize("name", trevsnn.zoo.presets.PRESETS)
def test_presets(name):
    model = trevsnn.create_model(name)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    through_timm = timm.create_model(name, num_classes=7, backprop="reversible")
    assert through_timm.config == TRevSNNConfig(
        **{**trevsnn.zoo.presets.PRESETS[name], "num_classes": 7, "backprop": "reversible"}
    )
    assert through_timm.num_classes == 7


def test_names_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="there is no model 'trevsnn_huge'; there are trevsnn_tiny"):
        trevsnn.create_model("trevsnn_huge")
    with pytest.raises(ValueError, match="has no option depth; it has channels"):
        trevsnn.create_model("trevsnn_tiny", depth=3)
    with pytest.raises(ValueError, match="no pretrained weights for trevsnn_nano"):
        timm.create_model("trevsnn_nano", pretrained=True)
    with pytest.raises(ValueError, match="must be one of"):
        trevsnn.create_model("trevsnn_nano").set_backprop("fast")  # type: ignore[arg-type]
