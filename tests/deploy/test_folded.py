"""The folded network against the evaluation-mode one it comes from."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from helpers import example, trained_like
from trevsnn import TRevSNN, TRevSNNConfig
from trevsnn.deploy.differences import spike_differences
from trevsnn.deploy.folded import fold, inference_spike
from trevsnn.deploy.nir.network import to_nir
from trevsnn.deploy.onnx.float32 import export_float32
from trevsnn.deploy.onnx.int8 import export_integer
from trevsnn.measure.operations import count_operations
from trevsnn.network.norm import BatchNorm
from trevsnn.network.spike import spike
from trevsnn.reversible import unroll


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"encoding": "grouped", "timesteps": 3},
        {"input": "event", "timesteps": 3},
        {"encoder_stride": 4, "kernel_size": 5},
        {"timesteps": 1, "slope": 0.3},
        {"links": "all", "channels": (6, 8, 8, 10), "timesteps": 3},
        {"alphas": "one"},
        {"links": "all", "alphas": "one", "input": "event", "timesteps": 3},
        {"input": "event", "readout": "mean", "timesteps": 3},
        {"input": "event", "readout": "mean", "timesteps": 3, "slope": 0.3},
    ],
)
def test_the_folded_network_is_the_same_function(options):
    model = trained_like(**options)
    folded = fold(model)
    x = example(model.config)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)
    differing, spikes = spike_differences(model, folded, x)
    assert not differing.any()
    assert spikes > 10_000
    single, folded_single, x = model.float(), fold(model.float()), x.float()
    same = spike_differences(single, folded_single, x)[0] == 0
    assert same.any()
    torch.testing.assert_close(folded_single(x)[same], single(x)[same], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("slope", "calls"), [(1.0, 1), (0.3, 3)])
def test_the_mean_of_logits_is_the_head_of_the_mean_rate_at_slope_1_alone(slope, calls):
    """The folded head is run once where that is the same function, and for every timestep where it is not."""
    model = trained_like(slope, input="event", readout="mean", timesteps=3)
    folded, x = fold(model), example(model.config)
    head = model.heads[-1]
    of_mean_rate = head(torch.stack([head.pool(tops[-1]) for tops in unroll(*model._recurrence(x))]).mean(0))
    assert ((of_mean_rate - model(x)).abs().max() < 1e-13) == (slope == 1)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)
    (first, *_) = [op for op in count_operations(folded, x) if op.name.startswith("head.classifier")]
    assert first.macs == calls * len(x) * 10 * 5
    assert not first.spiking


def test_folding_leaves_the_network_as_it_was_and_drops_what_inference_does_not_need():
    model = trained_like()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold(model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    names = dict(folded.named_parameters())
    assert not any("gain" in name or "bn" in name or "gamma" in name for name in names)
    assert not list(folded.buffers())
    assert not any(parameter.requires_grad for parameter in names.values())
    assert sum("head" in name for name in names) == 2  # one linear map
    assert not folded.training


@given(st.lists(st.floats(width=32), min_size=1))
def test_the_inference_spike_is_the_spike(values):
    potential = torch.tensor(values)
    torch.testing.assert_close(inference_spike(potential), spike(potential), rtol=0, atol=0, equal_nan=True)


def test_published_size_at_inference():
    with torch.device("meta"):
        model = TRevSNN(TRevSNNConfig())
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    folded = fold(model)
    # 15.0 M in architecture.md; BatchNorm's shifts took the place of its two vectors, gains and gamma are gone.
    assert sum(p.numel() for p in folded.parameters()) / 1e6 == pytest.approx(15.0, abs=0.1)


def test_a_batch_norm_without_running_statistics_cannot_be_folded_and_one_without_weights_can():
    model = trained_like()
    link = model.levels[1].steps[0].below
    mean, var = link.bn.running_mean, link.bn.running_var
    link.bn = BatchNorm(8, affine=False).double().eval()
    link.bn.running_mean, link.bn.running_var = mean, var
    x = example(model.config)
    torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-12, atol=1e-12)
    link.bn = BatchNorm(8, track_running_stats=False).double().eval()
    with pytest.raises(ValueError, match=r"levels\.1\.steps\.0\.below\.bn has no running statistics to fold"):
        fold(model)


def test_an_alpha_near_zero_is_folded_as_the_network_uses_it():
    model = trained_like()
    with torch.no_grad():
        model.levels[0].alphas[0].copy_(torch.tensor([0.0, 1e-4, -1e-4, 1e-3, 0.5, -0.5]).view(1, 6, 1, 1))
    before = model.levels[0].alphas[0].clone()
    folded = fold(model)
    assert folded.levels[0].alphas[0].flatten().tolist() == [1e-3, 1e-3, -1e-3, before.flatten()[3], 0.5, -0.5]
    assert torch.equal(model.levels[0].alphas[0], before)
    x = example(model.config)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)


def test_an_exchanged_convolution_keeps_its_padding():
    model = trained_like()
    conv = torch.nn.Conv2d(6, 6, 3, padding=1, groups=6, padding_mode="reflect").double()
    model.levels[0].steps[1].expand1.dw1 = conv
    x = example(model.config)
    torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("levels.1.steps.1.below", "levels.1.steps.1"),
        ("heads.3", "heads.3"),
        ("encoder", "encoder"),
        ("levels.0.shared", "levels.0.shared"),
    ],
)
def test_a_module_that_is_not_the_library_s_own_is_not_folded_but_named(path, part):
    model = trained_like()
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Sequential(model.get_submodule(path)))
    with pytest.raises(ValueError, match=rf"^{part} is, or holds, a module that is not the library's own"):
        fold(model)


def test_a_network_with_a_hook_is_not_folded_and_one_on_an_auxiliary_head_does_not_matter():
    model = trained_like()
    handle = model.levels[1].steps[0].register_forward_hook(lambda module, given, output: 3 * output)
    with pytest.raises(
        ValueError, match=r"^levels.1.steps.0 has a hook or a forward of its own, which a folded network"
    ):
        fold(model)
    handle.remove()
    model.heads[0].register_forward_hook(lambda module, given, output: 3 * output)
    x = example(model.config)
    torch.testing.assert_close(fold(model)(x), model(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{"padding": 1, "padding_mode": "circular"}, {"padding": 2, "dilation": 2}, {"padding": "same"}]
)
def test_a_convolution_that_graphs_do_not_take_is_named(options, tmp_path):
    """They were left out of ONNX files without a word."""
    model = trained_like().float()
    model.levels[0].steps[1].expand1.dw1 = nn.Conv2d(6, 6, 3, groups=6, **options)
    folded = fold(model)
    x = example(model.config).float()
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
    for write in (
        lambda: export_float32(folded, tmp_path / "a.onnx"),
        lambda: export_integer(folded, x, tmp_path / "b.onnx"),
        lambda: to_nir(folded, (12, 12)),
    ):
        with pytest.raises(ValueError, match=r"^levels.0.steps.1.expand1.dw1 is Conv2d\(.*which is not written"):
            write()
    assert not list(tmp_path.iterdir())


def test_a_network_of_another_dtype_or_with_nan_is_not_written(tmp_path):
    with pytest.raises(
        ValueError, match=r"^the network is torch.float64, and ONNX files are float32: fold\(model.float"
    ):
        export_float32(fold(trained_like()), tmp_path / "a.onnx")
    model = trained_like().float()
    with torch.no_grad():
        model.levels[0].steps[0].expand1.dw1.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"^levels.0.steps.0.expand1.dw1.weight holds a number that is not finite"):
        export_float32(fold(model), tmp_path / "a.onnx")
