"""What each node of an 8-bit ONNX file is for, written by the one that knows, for the engine that reads it.

A node's ``metadata_props`` hold its role and the name of its loop: the nodes that one loop of
:mod:`trevsnn.deploy.int8` computes together. ONNX Runtime ignores both. The loops, node by node (those in brackets are
there or not), with ``v`` for a membrane potential, ``s`` for the spike and ``q`` for codes of 8 bits:

=========================================================  =============================================================
roles                                                      computes
=========================================================  =============================================================
quantise                                                   ``q = round(picture / scale) + zero``
stem; projection                                           the encoder's convolutions, codes to codes
threshold, spikes                                          ``s(v)``, 0 and 1
link                                                       the convolution of a link, spikes to codes
threshold, spikes, dw1                                     ``q = DW1(s(v))``
pw1, hidden                                                ``s(PW1(q))``
pw2                                                        ``q = PW2(spikes)``
[upsample], [crop], dequantise, [add]                      ``scale * (q - zero)``, added to a potential if there is one
dw2, dequantise, add, [[decay], state]                     ``v + DW2(q)``; in a level's last block from t = 1 on
                                                           ``c[l,t] = alpha[l,t] * c[l,t-1] + (v + DW2(q))``; without
                                                           decay alpha is 1
plain                                                      what ONNX defines for the node, in float32
=========================================================  =============================================================
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from trevsnn.deploy.extras import require

Role = Literal[
    "quantise", "stem", "projection", "threshold", "spikes", "link", "dw1", "pw1", "hidden", "pw2", "upsample", "crop",
    "dequantise", "add", "dw2", "decay", "state", "plain",
]  # fmt: skip
Loop = dict[str, Any]  #: the nodes of one loop, by role, in the file's order

_ROLE, _LOOP = "trevsnn.role", "trevsnn.loop"  # keys of the metadata


def write_role(node: Any, role: Role, loop: str) -> None:
    """Put a role and the name of the loop into an ONNX node."""
    require("onnx").helper.set_metadata_props(node, {_ROLE: role, _LOOP: loop})


def read_loops(nodes: Iterable[Any]) -> list[Loop] | None:
    """The loops of a file's nodes, each where its last node stands; None where a node has no role.

    Version 0.1.0 wrote no roles.
    """
    loops: dict[str, Loop] = {}
    for node in nodes:
        metadata = {entry.key: entry.value for entry in node.metadata_props}
        if not metadata.keys() >= {_ROLE, _LOOP}:
            return None
        name = metadata[_LOOP]
        loops[name] = loops.pop(name, {}) | {metadata[_ROLE]: node}  # taken out and put in again, it stands last
    return list(loops.values())
