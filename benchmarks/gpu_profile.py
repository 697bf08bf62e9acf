"""The pieces ``profile`` and ``tune`` of benchmarks/gpu.py: where a step's time goes, and what settings are worth."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from gpu_cases import AS_CONFIGURED, REAL, SMALL, TINY, Case, Scale, build
from gpu_measure import eager, measure_step
from gpu_rows import Deadline, Rows, go_on_afresh_if_broken, guarded, machine
from operators import KINDS, kind
from trevsnn.network import slicing

MOST = 10  # rows of a table
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel")
#: Whose kernels run under another operator's name.
RUN_AS = {"aten::_to_copy": "aten::copy_", "aten::clone": "aten::copy_", "aten::convolution": "aten::cudnn_convolution"}


def profile(options: argparse.Namespace, deadline: Deadline) -> None:
    """The piece ``profile``."""
    scale, rows = SMALL if options.small else REAL, Rows(options.out / "profile.jsonl", retry=options.retry)
    wanted: dict[str, Callable[[], dict[str, Any]]] = {"ceilings": partial(ceilings, scale, options.device)}
    for mode, variant in (("exact", "eager"), ("exact", "kernels"), ("autograd", "eager")):
        case = Case(TINY, mode, variant, scale.timesteps[0], scale.batches[1])
        wanted[case.key] = partial(profile_step, case, scale, options.device)
    for key, what in wanted.items():
        if key in rows.done or deadline.left() <= 0:
            continue
        row = guarded(what) | machine(options.device)
        rows.add(key, row)
        text = f"{key}: {row['error']}" if "error" in row else _text(key, row)
        print(text, flush=True)
        with (options.out / "profile.txt").open("a") as file:
            file.write(text + "\n")
        go_on_afresh_if_broken()


def ceilings(scale: Scale, device: str) -> dict[str, Any]:
    """What the device reaches at best: bytes read and written a second by a copy, and operations a second by a product."""
    small = scale is SMALL
    source = torch.randn(2**20 if small else 2**30, device=device)
    target = torch.empty_like(source)
    n = 256 if small else 8192
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    copy, product = _seconds(lambda: target.copy_(source), device), _seconds(lambda: a @ b, device)
    return {"copy_bytes_per_second": 2 * source.nbytes / copy, "matmul_flops_per_second": 2 * n**3 / product}


def _seconds(run: Callable[[], Any], device: str) -> float:
    """Median seconds of one run."""
    from torch.utils.benchmark import Timer

    if device == "cuda":
        from triton.testing import do_bench

        return 1e-3 * float(do_bench(run, warmup=200, rep=500, return_mode="median"))
    return Timer("run()", globals={"run": run}).blocked_autorange(min_run_time=0.1).median


def profile_step(case: Case, scale: Scale, device: str) -> dict[str, Any]:
    """One training step by operator and by kernel.

    Returns:
        ``step_ms``, measured without the profiler; ``device_ms``, the sum of the kernels' times; ``launches``; ``flops`` of
        products and convolutions; ``kinds``, milliseconds by kind; ``operators`` and ``kernels``, the most expensive ones
        with ``ms`` and ``calls``; operators also have ``bytes``, the sizes of the tensors they are given and give, where
        they are called by that name.
    """
    measured = measure_step(case, scale, device)
    step = build(case, scale, device)
    passes = eager(step)
    for _ in range(3):
        passes(int)
    with Traffic() as traffic:
        passes(int)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    with torch.profiler.profile(activities=activities, record_shapes=True) as profiled:
        passes(int)
        if device == "cuda":
            torch.cuda.synchronize()
    operators = {key: row | {"bytes": traffic.bytes[key] or None} for key, row in _operators(profiled, device).items()}
    kernels = {
        event.key: {"ms": event.self_device_time_total / 1e3, "calls": event.count}
        for event in profiled.key_averages()
        if event.device_type == DeviceType.CUDA
    }
    calls = [event.count for event in profiled.key_averages() if event.key.startswith(LAUNCHES)]
    kinds = _kinds(profiled, device)
    total = sum(row["ms"] for row in kernels.values()) or sum(kinds.values())
    kinds["kernels of no operator"] = max(0.0, total - sum(kinds.values()))
    return {
        "step_ms": measured["step_ms"], "device_ms": total, "launches": sum(calls) if calls else None,
        "flops": traffic.flops, "kinds": kinds, "operators": _most(operators), "kernels": _most(kernels),
    }  # fmt: skip


class Traffic(TorchDispatchMode):
    """Counts by operator the bytes of the tensors it is given and gives, without views, and operations of products.

    PyTorch's own FlopCounterMode would put hooks on all modules, with which this library computes in another way.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counter[str] = Counter()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.flops += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=out)
        if not func.is_view:
            name = func.name().split(".")[0]
            moved = tree_leaves((args, kwargs, out))
            self.bytes[RUN_AS.get(name, name)] += sum(t.numel() * t.itemsize for t in moved if isinstance(t, Tensor))
        return out


def _own_ms(event: Any, device: str) -> float:
    return (event.self_device_time_total if device == "cuda" else event.self_cpu_time_total) / 1e3


def _operators(profiled: Any, device: str) -> dict[str, dict[str, Any]]:
    return {
        event.key: {"ms": _own_ms(event, device), "calls": event.count}
        for event in profiled.key_averages()
        if event.device_type == DeviceType.CPU and _own_ms(event, device) > 0
    }


def _kinds(profiled: Any, device: str) -> dict[str, float]:
    """Milliseconds by kind of operator, as benchmarks/operators.py tells them apart."""
    counted = dict.fromkeys(KINDS, 0.0)
    for event in profiled.key_averages(group_by_input_shape=True):
        if event.device_type == DeviceType.CPU:
            counted[kind(event.key, event.input_shapes)] += _own_ms(event, device)
    return counted


def _most(rows: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The most expensive ones."""
    return dict(sorted(rows.items(), key=lambda item: -item[1]["ms"])[:MOST])


def _text(key: str, row: dict[str, Any]) -> str:
    """A row of the piece ``profile`` as tables of text."""
    console = Console(width=150)
    with console.capture() as captured:
        numbers = {name: value for name, value in row.items() if isinstance(value, float | int)}
        console.print(key, *(f"{name} {value:,.1f}" for name, value in numbers.items()), sep="  ")
        for name in ("operators", "kernels"):
            table = Table(name, "ms", "calls", "GB/s")
            for title, part in row.get(name, {}).items():
                rate = f"{part['bytes'] / part['ms'] / 1e6:,.0f}" if part.get("bytes") else ""
                table.add_row(title[:110], f"{part['ms']:.2f}", str(part["calls"]), rate)
            if table.rows:
                console.print(table)
        console.print(*(f"{name} {value:.1f} ms" for name, value in row.get("kinds", {}).items()), sep="  ")
    return captured.get()


#: What is changed, one at a time: fields of the config, arguments of :func:`gpu_cases.build`, or a setting of PyTorch.
TUNED: dict[str, dict[str, Any]] = {
    "as it is": {},
    **{f"slices of {mib} MiB": {"slice_bytes": mib * 2**20} for mib in (32, 64, 128, 256, 512, 1024)},
    "the batch in one slice": {"slice_bytes": 2**50},
    **{f"keep {mb} MB/item": {"keep": f"{mb}MB/item"} for mb in (4, 12)},
    "kernels: eager": {"kernels": "eager"},
    "kernels: triton": {"kernels": "triton"},
    "maps channels-last everywhere": {"setting": "channels-last"},
    "maps, weights and pictures contiguous": {"channels_last": False, "setting": "contiguous"},
    "cudnn.benchmark": {"setting": "benchmark"},
    "deterministic algorithms, as trevsnn train has them": {"setting": "deterministic"},
    "as it is, again": {},
}  # fmt: skip


def tune(options: argparse.Namespace, deadline: Deadline) -> None:
    """The piece ``tune``: one factor at a time."""
    scale, rows = SMALL if options.small else REAL, Rows(options.out / "tune.jsonl", retry=options.retry)
    case = Case(TINY, "exact", AS_CONFIGURED, scale.timesteps[0], scale.batches[0])
    for name, changes in TUNED.items():
        if name in rows.done or deadline.left() <= 0:
            continue
        arguments = {key: value for key, value in changes.items() if key != "setting"}
        with setting(changes.get("setting")):
            row = guarded(partial(measure_step, case, scale, options.device, **arguments)) | machine(options.device)
        rows.add(name, {**case._asdict(), "size": scale.size, **row})
        print(name, row.get("step_ms", row.get("error")), row.get("bytes_per_picture"), sep="  ", flush=True)
        go_on_afresh_if_broken()


@contextmanager
def setting(name: str | None) -> Iterator[None]:
    """One setting of PyTorch's or of this library's layouts, undone at the end."""
    layouts = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}
    before = slicing.fast_format
    try:
        if name in layouts:
            slicing.fast_format = lambda device: layouts[name]
        torch.backends.cudnn.benchmark = name == "benchmark"
        torch.use_deterministic_algorithms(name == "deterministic", warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = name != "deterministic"  # type: ignore[attr-defined]
        yield
    finally:
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(False)
        slicing.fast_format = before
