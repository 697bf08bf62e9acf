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

ARCHITECTURE, MAPS = int(sys.argv[1]), sys.argv[2]
INTEGERS = {"pixels", "tiles", "strips", "each", "height", "width", "height_a", "width_a", "elements", "quarter"}
FLOATS = {"threshold", "low", "high", "eps_a", "eps_b"}
SUMS = {"sums1", "sums2", "sums_b", "sums_ptr"}
STATISTICS = {f"{name}_{place}" for name in ("mean", "var", "weight", "bias") for place in "ab"}
PARAMETERS = {"w_ptr", "bias_ptr", "gamma_ptr"}


def compile_kernel(name, function, options, wide=(), **constants):
    """``wide`` are the arguments in float32 besides sums; other maps and parameters are of the type asked for."""
    constants |= {key: value for key, value in options.items() if key.startswith(("BLOCK", "ROWS"))}
    signature = {}
    for argument in function.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in INTEGERS or argument in FLOATS:
            signature[argument] = "i32" if argument in INTEGERS else "fp32"
        else:
            signature[argument] = (
                "*u8" if argument == "bits_ptr" else "*fp32" if argument in SUMS.union(wide) else f"*{MAPS}"
            )
    aligned = {(i,): [["tt.divisibility", 16]] for i, a in enumerate(function.arg_names) if signature[a][0] == "*"}
    source = ASTSource(fn=function, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", ARCHITECTURE, 32)
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


def compile_depthwise(channels, size, *, second):
    """Both ends of a block under autocast: parameters, adjoints and what a block gives are in float32, and what the second block
    of a level is given is, too."""
    shape, name = {"C": channels, "K": size}, f"{size}-{channels}-{'second' if second else 'first'}"
    tile, back = depthwise._tile(channels, size), depthwise._tile_backward(channels, size)
    forward, backward = depthwise._depthwise_forward, depthwise._depthwise_backward
    fire = PARAMETERS | ({"x_ptr"} if second else set())
    add = PARAMETERS | {"out_ptr"} | ({"v_ptr"} if second else set())
    starts, ends = {"FIRE": True, "GAMMA": False}, {"FIRE": False, "GAMMA": not second}
    compile_kernel(f"depthwise._fire-{name}", forward, tile, fire, **shape, **starts, ADD=False, BIAS=True)
    compile_kernel(f"depthwise._add-{name}", forward, tile, add, **shape, **ends, ADD=True, BIAS=True)
    compile_kernel(f"depthwise._back_fire-{name}", backward, back, fire | {"outer_ptr", "out_ptr"}, **shape, **starts)
    compile_kernel(f"depthwise._back_add-{name}", backward, back, PARAMETERS | {"grad_ptr"}, **shape, **ends)


for channels in (64, 128) if ARCHITECTURE >= 80 else ():
    size = {"C": channels, "D": 4 * channels, "BIAS1": True}
    compile_kernel(f"hidden._forward-{channels}", hidden._hidden_forward, hidden._tile(channels), **size, BIAS2=True)
    compile_kernel(f"hidden._backward_input-{channels}", hidden._hidden_backward_input, hidden._tile(channels), **size)
    tile = hidden._tile(channels, weights=True)
    compile_kernel(f"hidden._backward_weights-{channels}", hidden._hidden_backward_weights, tile, **size)
compile_depthwise(64, 3, second=True)
compile_depthwise(128, 3, second=False)
compile_depthwise(64, 5, second=True)
for channels, norm, above in ((64, True, True), (64, True, False), (64, False, True), (128, True, True)):
    flags = {"NORM": norm, "AFFINE_B": norm, "AFFINE_A": above or norm, "ABOVE": above}
    name = f"potential._potential-{channels}-{norm}-{above}"
    tile = {"BLOCK_N": 32, "BLOCK_C": 64}
    compile_kernel(name, potential._potential, tile, STATISTICS, C=channels, **flags)
for wide in (set(), {"v_ptr"}):
    compile_kernel("codes._fire", kernels._fire, {"BLOCK": 1024}, wide)
    compile_kernel("codes._code", kernels._code, {"BLOCK": 1024}, wide)
compile_kernel("codes._decode", kernels._decode, {"BLOCK": 1024}, PLACE=0, TIMES=False)
compile_kernel("codes._decode", kernels._decode, {"BLOCK": 1024}, PLACE=1, TIMES=True)
compile_kernel("codes._decode", kernels._decode, {"BLOCK": 1024}, {"grad_ptr", "out_ptr"}, PLACE=1, TIMES=True)
