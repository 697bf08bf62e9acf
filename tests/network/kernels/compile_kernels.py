"""Compiles the kernels that a card of an architecture, such as 80, takes for maps of a type, bf16 or fp16, without the card: a
name, its bytes of shared memory, and those that a thread spills from its registers, a line."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trevsnn.network.kernels import depthwise, hidden, potential
from trevsnn.neurons import kernels

INTEGERS = {"pixels", "tiles", "strips", "each", "height", "width", "height_a", "width_a", "elements", "quarter"}
FLOATS = {"threshold", "low", "high", "eps_a", "eps_b"}
FLOAT32 = {"v_ptr", "gamma_ptr", "outer_ptr", "sums1", "sums2", "sums_b", "sums_ptr"}
FLOAT32 |= {f"{name}_{place}" for name in ("mean", "var", "weight", "bias") for place in "ab"}


def compile_kernel(name, function, options, **constants):
    constants |= {key: value for key, value in options.items() if key.startswith(("BLOCK", "ROWS"))}
    signature = {}
    for argument in function.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in INTEGERS or argument in FLOATS:
            signature[argument] = "i32" if argument in INTEGERS else "fp32"
        else:
            signature[argument] = (
                "*u8" if argument == "bits_ptr" else "*fp32" if argument in FLOAT32 else f"*{sys.argv[2]}"
            )
    aligned = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(function.arg_names) if signature[a][0] == "*"}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    run = {key: value for key, value in options.items() if key.startswith("num")}
    compiled = triton.compile(source, target=target, options=run)
    print(f"{name} {compiled.metadata.shared} {spilled(compiled.asm['cubin'])}")


def spilled(cubin):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        program = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        text = subprocess.run([program, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"STACK:(\d+)", text)[1])


for channels in (64, 128) if int(sys.argv[1]) >= 80 else ():
    size = {"C": channels, "D": 4 * channels, "BIAS1": True}
    compile_kernel(f"hidden._forward-{channels}", hidden._hidden_forward, hidden._tile(channels), **size, BIAS2=True)
    compile_kernel(f"hidden._backward_input-{channels}", hidden._hidden_backward_input, hidden._tile(channels), **size)
    tile = hidden._tile(channels, weights=True)
    compile_kernel(f"hidden._backward_weights-{channels}", hidden._hidden_backward_weights, tile, **size)
for size in (3, 5):
    shape = {"C": 64, "K": size}
    tile, back = depthwise._tile(64, size), depthwise._tile_backward(64, size)
    spikes, added = {"FIRE": True, "ADD": False, "GAMMA": False}, {"FIRE": False, "ADD": True, "GAMMA": True}
    for options in (spikes, added):
        compile_kernel(f"depthwise._forward-{size}", depthwise._depthwise_forward, tile, **shape, BIAS=True, **options)
    for options in ({"FIRE": True, "GAMMA": False}, {"FIRE": False, "GAMMA": True}):
        compile_kernel(f"depthwise._backward-{size}", depthwise._depthwise_backward, back, **shape, **options)
flags = {"NORM": True, "AFFINE_A": True, "AFFINE_B": True, "ABOVE": True}
compile_kernel("potential._potential", potential._potential, {"BLOCK_N": 32, "BLOCK_C": 64}, C=64, **flags)
compile_kernel("codes._fire", kernels._fire, {"BLOCK": 1024})
compile_kernel("codes._code", kernels._code, {"BLOCK": 1024})
compile_kernel("codes._decode", kernels._decode, {"BLOCK": 1024}, PLACE=1, TIMES=True)
