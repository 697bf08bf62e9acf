"""A trained network elsewhere: folded, exported, in 8 bits, and the engines that run it.

Names only; :mod:`trevsnn.deploy.engines` makes an engine, :mod:`trevsnn.deploy.export` writes an export.
"""

from __future__ import annotations

from typing import Literal, get_args

#: "eager", the network itself; "folded"; "onnx", ONNX Runtime on an exported folder's model.onnx; "int8", the folded network
#: with the weights of its model-int8.safetensors, in float32; "onnx-int8", ONNX Runtime on its model-int8.onnx, in 8-bit
#: arithmetic; "spikes", the same arithmetic, spike-driven where it fires rarely.
Engine = Literal["eager", "folded", "onnx", "int8", "onnx-int8", "spikes"]

#: Files that an export has beside the network itself: "onnx", model.onnx; "torch", model.pt2; "int8",
#: model-int8.safetensors; "onnx-int8", model-int8.onnx; "nir", model.nir.
Format = Literal["onnx", "torch", "int8", "onnx-int8", "nir"]
#: Those that are made where none is asked for: NIR cannot say every network, and needs an extra of its own.
FORMATS: tuple[Format, ...] = tuple(name for name in get_args(Format) if name != "nir")
