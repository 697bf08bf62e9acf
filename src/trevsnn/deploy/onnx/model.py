"""An exported ONNX file, float32 or 8-bit, run by ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from trevsnn.deploy.extras import require
from trevsnn.deploy.fingerprint import FINGERPRINT, check_fingerprint
from trevsnn.errors import RunError
from trevsnn.files import read_file
from trevsnn.network.model import TRevSNN

MOST = 2**31  # bytes of a file, which Protobuf does not exceed either
NO_OTHER_FILES = "session.model_external_initializers_file_folder_path"  # where numbers outside of a file would lie


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
            ValueError: the input is not float32, has another shape than the file takes, or holds NaN or an infinite number.
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
    """Check that the items of ``x`` are float32, have the shape a file takes, without the batch's axis, and are finite. An axis
    that has a name in place of a number is of any size above 0.

    Raises:
        ValueError: they do not.
    """
    pairs = zip(shape, x.shape[1:], strict=False)
    if x.dim() != len(shape) + 1 or any(
        given != taken if isinstance(taken, int) else given == 0 for taken, given in pairs
    ):
        raise ValueError(f"the input has shape {tuple(x.shape)}; this ONNX file takes {('B', *shape)}.")
    if x.dtype != torch.float32:
        raise ValueError(f"the input is {x.dtype}; this ONNX file takes torch.float32.")
    if not x.sum().isfinite() and not x.isfinite().all():  # a sum costs less
        raise ValueError("the input holds NaN or an infinite number.")
