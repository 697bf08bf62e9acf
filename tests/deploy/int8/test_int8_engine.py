"""The spike-driven engine against ONNX Runtime on the same file."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from int8_networks import VARIANTS, convolutions, exported

from helpers import trained_like
from trevsnn.deploy.fingerprint import FINGERPRINT, fingerprint_of
from trevsnn.deploy.folded import fold
from trevsnn.deploy.int8 import loops, loops_numpy
from trevsnn.deploy.int8 import product as integer_product
from trevsnn.deploy.int8.engine import SpikeDriven
from trevsnn.deploy.onnx.model import OnnxModel
from trevsnn.errors import RunError


@pytest.mark.parametrize("options", VARIANTS)
def test_the_engine_gives_the_logits_of_onnx_runtime(options, tmp_path):
    folded = fold(trained_like(**options).float())
    path, x = exported(folded, tmp_path)
    runtime = OnnxModel(path)
    for crossover in (0.0, 0.3, 1.1):
        engine = SpikeDriven(path, crossover=crossover)
        for part in (x, x[:1]):
            torch.testing.assert_close(engine(part), runtime(part), rtol=1e-6, atol=1e-6)
        assert len(engine.rates) > 2 * folded.config.timesteps * len(folded.config.channels)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(engine(x[:1].requires_grad_()), engine(x[:1].detach()))
        with pytest.raises(ValueError, match="takes"):
            engine(x[..., :-1])
        with pytest.raises(ValueError, match="NaN"):
            engine(torch.full_like(x, torch.nan))


@pytest.mark.parametrize("options", VARIANTS)
def test_without_numba_it_gives_the_same(options, tmp_path, monkeypatch):
    path, x = exported(fold(trained_like(**options).float()), tmp_path)
    x = x[:2]  # NumPy takes a hundred times as long
    right = SpikeDriven(path)(x)
    monkeypatch.setattr(loops, "chosen", lambda: loops_numpy)
    for crossover in (0.0, 1.1):
        assert torch.equal(SpikeDriven(path, crossover=crossover)(x), right)


def test_without_numba_it_says_so():
    program = (
        "import sys, warnings; sys.modules['numba'] = None\n"
        "from trevsnn.deploy.int8.loops import chosen, set_threads\n"
        "with warnings.catch_warnings(record=True) as found: kernel = chosen()\n"
        "assert kernel.__name__.endswith('loops_numpy')\n"
        "set_threads()\n"
        "print(found[0].message)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("Numba is not installed: the spike-driven engine is dense and slow")


@torch.no_grad()
def test_weights_that_all_round_up_stay_within_seven_bits(tmp_path):
    """DW1's output was up to 131, which an int8 takes for a negative number."""
    folded = fold(trained_like().float())
    for conv in convolutions(folded, "dw1"):
        conv.weight.fill_(0.51 / 127)
        conv.weight[:, :, 1, 1] = 1
    path, x = exported(folded, tmp_path)
    torch.testing.assert_close(SpikeDriven(path)(x), OnnxModel(path)(x), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_silent_channel_of_a_trained_network_keeps_its_bias(tmp_path):
    """Weights all but zero made its bias, in steps of theirs, run over 32 bits."""
    folded = fold(trained_like().float())
    for conv in convolutions(folded, "dw2"):
        assert conv.bias is not None
        conv.weight[0] = 1e-12
        conv.bias[0] = 0.3
    path, x = exported(folded, tmp_path)
    biases = [
        onnx.numpy_helper.to_array(tensor).astype(np.int64)
        for tensor in onnx.load(path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT32
    ]
    assert max(np.abs(bias).max() for bias in biases) == 2**30
    torch.testing.assert_close(SpikeDriven(path)(x), OnnxModel(path)(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("place", ["below all", "between", "above all"])
def test_it_is_spike_driven_below_the_crossover_and_dense_from_it_on(place, tmp_path, monkeypatch):
    path, x = exported(fold(trained_like().float()), tmp_path)
    every = SpikeDriven(path)
    every(x)
    rates = sorted(every.rates.values())
    crossover = {"below all": 0.0, "between": rates[len(rates) // 2], "above all": 1.1}[place]
    engine, used = SpikeDriven(path, crossover=crossover), []
    kernel = loops.chosen()
    accumulate = kernel.accumulate
    monkeypatch.setattr(kernel, "accumulate", lambda *arrays: (used.append(1), accumulate(*arrays)))
    engine(x)
    below = sum(rate < crossover for rate in engine.rates.values())
    assert len(used) == below  # of so small maps a convolution is one part
    assert (below > 0) == (crossover > 0)
    assert (below < len(engine.rates)) == (crossover < 1)


def test_rates_are_those_of_the_network(tmp_path):
    path, x = exported(fold(trained_like().float()), tmp_path)
    engine = SpikeDriven(path)
    assert engine.rates == {}
    engine(x)
    rates = dict(engine.rates)
    engine(torch.zeros_like(x))
    assert engine.rates == rates
    assert len({round(rate, 3) for rate in rates.values()}) > 5


def test_a_processor_whose_products_run_over_computes_them_in_float32(tmp_path, monkeypatch):
    path, x = exported(fold(trained_like().float()), tmp_path)
    exact = SpikeDriven(path)(x)
    monkeypatch.setattr(integer_product, "_packed_is_exact", lambda: False)
    monkeypatch.setattr(integer_product, "_integer_is_exact", lambda: False)
    monkeypatch.setattr(torch, "_int_mm", None)
    assert torch.equal(SpikeDriven(path)(x), exact)


@pytest.mark.parametrize("first", ["set_threads()", ""])
def test_it_leaves_pytorch_its_number_of_threads(first):
    """Numba's start sets the number of the OpenMP that both may use, and with it the order of PyTorch's sums."""
    program = (
        "import numpy as np, torch\n"
        "from trevsnn.deploy.int8.loops import set_threads; from trevsnn.deploy.int8.maps import spike_codes\n"
        "torch.set_num_threads(1)\n"
        f"{first}\n"
        "spike_codes(np.float32(0.5), np.ones((1, 2, 2, 32), np.float32))\n"
        "assert torch.get_num_threads() == 1\n"
        "import numba; assert numba.get_num_threads() == 1"
    )
    environment = os.environ | {"NUMBA_NUM_THREADS": "3"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_options_of_numba_in_the_working_folder_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".numba_config.yaml").write_text(f"CACHE_DIR: {tmp_path}/code\n")
    with pytest.raises(RunError, match=r"holds \.numba_config\.yaml, .* remove it"):
        loops.chosen.__wrapped__()


def test_a_file_whose_output_is_no_logits_is_refused(tmp_path):
    model = trained_like().float()
    path, x = exported(fold(model), tmp_path)
    file = onnx.load(path)
    logits = file.graph.node[-1]
    assert list(logits.output) == ["logits"]
    logits.output[:] = ["once"]
    file.graph.node.append(onnx.helper.make_node("Concat", ["once", "once"], ["logits"], axis=1))
    del file.graph.output[0].type.tensor_type.shape.dim[:]
    onnx.helper.set_model_props(file, {FINGERPRINT: fingerprint_of(model)})
    path.write_bytes(file.SerializeToString())
    with pytest.raises(RunError, match=r"cannot be computed \(it gives \(4, 10\) numbers for 4 items of 5 classes\)"):
        OnnxModel(path, model)(x)
