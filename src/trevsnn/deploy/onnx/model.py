"""A network as an ONNX file in float32, and any exported ONNX file run by ONNX Runtime."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.deploy.folded import FoldedTRevSNN
from trevsnn.errors import RunError
from trevsnn.files import read_file, write_file
from trevsnn.network.model import TRevSNN

MOST = 2**31  # bytes of a file, which Protobuf does not exceed either
NO_OTHER_FILES = "session.model_external_initializers_file_folder_path"  # where numbers outside of a file would lie


def batch_axis() -> tuple[dict[int, torch.export.Dim]]:
    """The ``dynamic_shapes`` of :func:`torch.export.export` for an input whose first axis, and it alone, is of any size."""
    return ({0: torch.export.Dim("batch")},)


def any_size(network: FoldedTRevSNN) -> tuple[Tensor, dict[int, torch.export.Dim]]:
    """An example from which a network is exported for items of any height and width, and its axes of any size.

    It is so large that on no level a side has one pixel alone, which the exporter would take for fixed.
    """
    config = network.config
    side = 2 ** (len(config.channels) + 3)
    frames = (config.timesteps,) if config.input == "event" else ()
    example = torch.zeros(2, *frames, config.in_chans or 0, side, side + 8)
    axes = {0: "batch", example.dim() - 2: "height", example.dim() - 1: "width"}
    return example, {axis: torch.export.Dim(name) for axis, name in axes.items()}


def export_onnx(
    network: nn.Module, example: Tensor | None, path: Path, fingerprint: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> None:  # fmt: skip
    """Write an ONNX file, input ``input`` and output ``logits``, float32, with a batch of any size.

    Args:
        network: on the CPU, in evaluation mode.
        example: an input of the height and width the file is to take, of two items at least. None, of a folded network,
            for any height and width.
        path: of the file.
        fingerprint: of the network, for the file's metadata.
        properties: further metadata.

    Raises:
        UsageError: onnx and onnxscript are not installed.
        RunError: the file cannot be written.
    """
    require("onnx")
    require("onnxscript")
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # they report every stage and every node they simplify
        logging.getLogger(name).setLevel(logging.ERROR)
    axes = batch_axis()
    if example is None:
        assert isinstance(network, FoldedTRevSNN)
        example, free = any_size(network)
        axes = (free,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network, (example,), dynamo=True, input_names=["input"], output_names=["logits"],
            dynamic_shapes=axes, verbose=False,
        )  # fmt: skip
    assert program is not None
    for node in program.model.graph.all_nodes():  # where in whose files it comes from is nobody's business
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)
    if fingerprint is not None:
        program.model.metadata_props[FINGERPRINT] = fingerprint
    program.model.metadata_props.update(properties or {})
    write_file(path, program.model_proto.SerializeToString())


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
        options.add_session_config_entry(NO_OTHER_FILES, os.devnull)
        with reading(path):  # from its bytes: by a path it may name other files, of whose numbers it would be made
            content = read_onnx(path)
            self.session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            self.shape = self.session.get_inputs()[0].shape[1:]  # an axis of any size by a name
        self.path, self.model = path, model
        if model is not None:
            check_fingerprint(self.session.get_modelmeta().custom_metadata_map.get(FINGERPRINT), model, path)

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (B, in_chans, H, W) or frames (B, T, in_chans, H, W), float32, to logits (B, K).

        Raises:
            ValueError: the input has another shape than the file takes, or holds NaN.
            RunError: the file does not compute logits from it.
        """
        check_input(x, self.shape)
        with computing(self.path):
            (logits,) = self.session.run(["logits"], {"input": x.contiguous().numpy()})
            check_logits(logits.shape, len(x), self.model)
            return torch.from_numpy(logits)


def read_onnx(path: Path) -> bytes:
    """The content of an ONNX file. Raises OSError or ValueError as :func:`trevsnn.files.read_file`."""
    return read_file(path, MOST)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever fails within into a RunError about the file at ``path``."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # those of ONNX, protobuf and ONNX Runtime have no common class of their own
        first = (str(error).splitlines() or [""])[0]
        raise RunError(f"{path} is missing or no ONNX file ({first}): export the model again.") from error


@contextmanager
def computing(path: Path) -> Iterator[None]:
    """Turn whatever fails within into a RunError about the file at ``path``: its operators do not fit together, or to the network."""
    try:
        yield
    except Exception as error:  # of ONNX Runtime, NumPy and PyTorch
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path} cannot be computed ({first}): export the model again.") from error


def check_logits(shape: Sequence[int], items: int, model: TRevSNN | None) -> None:
    """Check the shape of logits. Raises ValueError where there are not those of each class for each item."""
    config = None if model is None else model.config
    classes = shape[-1] if config is None else config.num_classes or config.channels[-1]
    if tuple(shape) != (items, classes):
        raise ValueError(f"it gives {tuple(shape)} numbers for {items} items of {classes} classes")


def check_input(x: Tensor, shape: Sequence[int | str]) -> None:
    """Check that the items of ``x`` have the shape a file takes, without the batch's axis, and hold no NaN.
    An axis that has a name in place of a number is of any size.

    Raises:
        ValueError: they do not.
    """
    pairs = zip(shape, x.shape[1:], strict=False)
    if x.dim() != len(shape) + 1 or any(isinstance(taken, int) and taken != given for taken, given in pairs):
        raise ValueError(f"the input has shape {tuple(x.shape)}; this ONNX file takes {('B', *shape)}.")
    if not x.sum().isfinite() and x.isnan().any():  # a sum costs less, and is finite only without NaN
        raise ValueError("the input holds NaN.")
