"""ONNX's operators one at a time, as the standard defines them: dense, in NumPy and PyTorch.

This is the naive twin of everything that :mod:`trevsnn.deploy.int8.reader` has one loop compute, for files that do not say
which nodes belong together. Maps are those of :mod:`trevsnn.deploy.int8.maps`, so that what is computed in float32 is the
same to the last bit. Only what :mod:`trevsnn.deploy.onnx.int8` writes is here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch.nn.functional import conv2d, linear

from trevsnn.deploy.extras import require
from trevsnn.deploy.int8.layers import QLinearConv
from trevsnn.deploy.int8.maps import Array, Codes, Floats, channels_last, pad_to_lanes
from trevsnn.errors import RunError

Compute = Callable[..., Array]


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name."""
    return {a.name: require("onnx").helper.get_attribute_value(a) for a in node.attribute}


def operation(node: Any, constants: Sequence[Array]) -> Compute:
    """What an operator computes from those of its inputs that are maps.

    Args:
        node: of ONNX.
        constants: those of its inputs that are constants, in ONNX's order.

    Raises:
        RunError: this package writes no such operator.
    """
    options = attributes(node)
    match node.op_type:
        case "QuantizeLinear":
            return partial(_quantise, *constants)
        case "DequantizeLinear":
            scale, zero = constants
            return lambda codes: (codes.astype(np.float32) - np.float32(zero)) * scale
        case "QLinearConv":
            return partial(_qlinear_conv, QLinearConv(*constants), options)
        case "Clip":
            return lambda codes: np.clip(codes, *constants)
        case "Resize":
            height, width = (int(factor) for factor in constants[0][2:])
            return lambda codes: codes.repeat(height, 1).repeat(width, 2)
        case "Slice":
            height, width = (int(end) for end in constants[1])
            return lambda codes: np.ascontiguousarray(codes[:, :height, :width])
        case "Add":
            return np.add
        case "Mul":
            factor = pad_to_lanes(constants[0].reshape(-1))
            return lambda state: factor * state
        case "Gather":
            (places,) = constants
            if places.ndim == 0:  # one of the frames (B, T, H, W, C)
                return lambda frames: np.ascontiguousarray(frames[:, int(places)])
            axis = options["axis"] - 1  # rows or columns of maps, which are (B, C, H, W) to ONNX
            return lambda codes: codes.take(places, axis)
        case "Conv":
            return _float_conv(constants, options)
        case "LeakyRelu":
            return lambda x: np.where(x < 0, np.float32(options["alpha"]) * x, x)
        case "Gemm":
            weight, bias = map(torch.from_numpy, constants)
            return lambda x: linear(torch.from_numpy(x[:, : weight.shape[1]]), weight, bias).numpy()
        case "Cast":
            return lambda spikes: spikes.astype(np.float32)
        case "ReduceMean":
            return lambda spikes: spikes.mean((1, 2))
        case "Mean":
            return lambda *maps: reduce(np.add, maps) / np.float32(len(maps))
        case "Identity":
            return lambda x: x
    raise RunError(f"the ONNX file holds an operator {node.op_type}, which the spike-driven engine does not have.")


def _quantise(scale: Array, zero: Array, x: Floats) -> Codes:
    """``round(x / scale) + zero``, limited to 0..255, halves to even."""
    return np.clip(np.rint(x / scale) + np.float32(zero), 0, 255).astype(np.uint8)


def _qlinear_conv(constants: QLinearConv, attributes: dict[str, Any], codes_BHWC: Codes) -> Codes:
    """``round((sum (x - x_zero) * w + b) * s) + y_zero``, limited to 0..255, halves to even."""
    weight, groups = torch.from_numpy(constants.weight.astype(np.float64)), attributes["group"]
    x = codes_BHWC[..., : groups * weight.shape[1]] - constants.x_zero.astype(np.float64)
    stride, padding = attributes["strides"], attributes["pads"][:2]
    # In float64 sums of whole numbers are exact up to 2^53.
    sums = conv2d(torch.from_numpy(x).movedim(-1, 1), weight, None, stride, padding, groups=groups).movedim(1, -1)
    codes = np.rint((sums.numpy() + constants.bias).astype(np.float32) * constants.scale) + np.float32(constants.y_zero)
    return pad_to_lanes(np.clip(codes, 0, 255).astype(np.uint8), value=int(constants.y_zero))


def _float_conv(constants: Sequence[Array], attributes: dict[str, Any]) -> Compute:
    """A convolution in float32, with zero-padded output channels."""
    weight, *biases = (torch.from_numpy(pad_to_lanes(values, axis=0)) for values in constants)
    bias, stride, padding = next(iter(biases), None), attributes["strides"], attributes["pads"][:2]

    def convolve(x: Floats) -> Floats:
        maps = torch.from_numpy(x[..., : weight.shape[1]]).movedim(-1, 1)
        return channels_last(conv2d(maps, weight, bias, stride, padding).numpy())

    return convolve
