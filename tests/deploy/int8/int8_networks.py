"""Networks and their 8-bit files that the tests of the engine share."""

from helpers import example
from trevsnn.deploy.onnx.int8 import export_integer

VARIANTS = [
    {}, {"input": "event", "timesteps": 3}, {"input": "event", "readout": "mean", "timesteps": 3},
    {"input": "event", "readout": "mean", "slope": 0.5}, {"encoding": "grouped"}, {"encoder_stride": 2}, {"kernel_size": 5},
    {"channels": (1, 3, 40)}, {"slope": 0.5},
    {"alphas": "one"}, {"links": "all", "channels": (4, 6, 8, 10), "timesteps": 3},
]  # fmt: skip


def exported(folded, folder):
    """The 8-bit file of a network, and inputs that it was calibrated on."""
    x = example(folded.config, batch=4).float()
    export_integer(folded, x, folder / "model.onnx")
    return folder / "model.onnx", x


def convolutions(folded, name):
    """All of a folded network by that name, one at least."""
    found = [module for path, module in folded.named_modules() if path.endswith(name)]
    assert found
    return found
