"""A network as an ONNX file in float32, and any exported ONNX file run by ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.errors import RunError
from trevsnn.network.model import TRevSNN


def batch_axis() -> tuple[dict[int, torch.export.Dim]]:
    """The ``dynamic_shapes`` of :func:`torch.export.export` for an input whose first axis, and it alone, is of any size."""
    return ({0: torch.export.Dim("batch")},)


def export_onnx(network: nn.Module, example: Tensor, path: Path, fingerprint: str | None = None) -> None:
    """Write an ONNX file, input ``input`` and output ``logits``, float32, with a batch of any size.

    Args:
        network: on the CPU, in evaluation mode.
        example: an input of the height and width the file is to take, of two items at least.
        path: of the file.
        fingerprint: of the network, for the file's metadata.

    Raises:
        UsageError: onnx and onnxscript are not installed.
    """
    require("onnx")
    require("onnxscript")
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they report every stage and every node they simplify
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (example,), dynamo=True, input_names=["input"], output_names=["logits"],
            dynamic_shapes=batch_axis(), verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph.all_nodes():  # where in whose files it comes from is nobody's business
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    if fingerprint is not None:
        program.model.metadata_props[FINGERPRINT] = fingerprint
    program.save(str(path))


class OnnxModel:
    """An exported ONNX file, float32 or 8-bit, in ONNX Runtime on the CPU, called like the network.

    It takes as many threads as PyTorch has when it is made.

    Args:
        path: of the file.
        model: the network whose weights the file has to be made from; None takes any file.

    Raises:
        UsageError: onnxruntime is not installed.
        RunError: the file is missing, damaged or of another network.
    """

    def __init__(self, path: Path, model: TRevSNN | None = None) -> None:
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        with reading(path):
            self.session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        if model is not None:
            check_fingerprint(self.session.get_modelmeta().custom_metadata_map.get(FINGERPRINT), model, path)

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), float32, to logits (B, K).

        Raises:
            ValueError: the input has another shape than the file takes, or holds NaN.
        """
        check_input(x, self.session.get_inputs()[0].shape[1:])
        (logits,) = self.session.run(None, {"input": x.contiguous().numpy()})
        return torch.from_numpy(logits)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever fails within into a RunError about the file at ``path``."""
    try:
        yield
    except Exception as error:  # those of ONNX, protobuf and ONNX Runtime have no common class of their own
        first = (str(error).splitlines() or [""])[0]
        raise RunError(f"{path} is missing or no ONNX file ({first}): export the model again.") from error


def check_input(x: Tensor, shape: Sequence[int]) -> None:
    """Check that the items of ``x`` have the shape a file takes, without the batch's axis, and hold no NaN.

    Raises:
        ValueError: they do not.
    """
    if list(x.shape[1:]) != list(shape):
        raise ValueError(f"the input has shape {tuple(x.shape)}; this ONNX file takes {('B', *shape)}.")
    if not x.sum().isfinite() and x.isnan().any():  # a sum costs less, and is finite only without NaN
        raise ValueError("the input holds NaN.")
