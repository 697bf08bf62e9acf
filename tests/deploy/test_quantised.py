"""Weights in 8 bits."""

import pytest
import torch

from helpers import example, trained_like
from trevsnn.deploy.fingerprint import fingerprint_of
from trevsnn.deploy.folded import fold
from trevsnn.deploy.quantised import load_quantised, quantise, save_quantised
from trevsnn.errors import RunError


def test_eight_bits_round_every_weight_to_127_steps():
    folded = fold(trained_like().float())
    rounded, tensors = quantise(folded)
    ours = dict(folded.named_parameters())
    for name, parameter in rounded.named_parameters():
        if name.endswith("weight"):
            codes, scale = tensors[name], tensors[name.replace("weight", "scale")]
            assert codes.dtype == torch.int8
            assert codes.flatten(1).abs().amax(1).eq(127).all()
            assert torch.equal(codes * scale.view(-1, *[1] * (codes.dim() - 1)), parameter)
            assert ((parameter - ours[name]).abs() <= 0.5001 * scale.view(-1, *[1] * (codes.dim() - 1))).all()
        else:
            assert torch.equal(parameter, ours[name])


def test_the_8_bit_file_gives_the_rounded_network_and_no_other_is_taken(tmp_path):
    model = trained_like().float()
    rounded, tensors = quantise(fold(model))
    file = tmp_path / "model-int8.safetensors"
    save_quantised(tensors, file, fingerprint_of(model))
    x = example(model.config).float()
    assert torch.equal(load_quantised(file, model)(x), rounded(x))
    with pytest.raises(RunError, match=r"int8\.safetensors is of another model than the weights and config beside it"):
        load_quantised(file, trained_like(timesteps=1).float())
    scale = next(tensor for name, tensor in tensors.items() if name.endswith(".scale"))
    scale[0], finite = float("inf"), scale[0].clone()
    save_quantised(tensors, tmp_path / "infinite.safetensors", fingerprint_of(model))
    scale[0] = finite
    with pytest.raises(RunError, match=r"weight holds NaN or infinite numbers in .*infinite\.safetensors"):
        load_quantised(tmp_path / "infinite.safetensors", model)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(RunError, match=r"int8\.safetensors is missing or damaged .*: export the model again"):
        load_quantised(file, model)
