"""How benchmarks/gpu.py measures: memory and time of a training step, the largest batch, and what failed."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gpu_cases import (
    LARGEST,
    OUT_OF_MEMORY,
    SEW,
    Case,
    Scale,
    Step,
    UnavailableError,
    build,
    neurons_of_spikingjelly,
    release,
)
from gpu_rows import guarded, is_broken, machine
from trevsnn.measure.memory import footprint

WARM_UP = 3
ATTEMPTS = 6  # at the largest batch

#: Sets a mark in time.
Mark = Callable[[], Any]
#: A forward and backward pass; what it is given sets a mark between the two.
Passes = Callable[[Mark], None]


def measure(case: Case, scale: Scale, device: str) -> dict[str, Any]:
    """What there is to say of a case: its figures, or ``error``, a sentence. Nothing of it stays on the device."""
    start = time.perf_counter()
    what = find_largest if case.batch == LARGEST else measure_step
    row = {**case._asdict(), "size": scale.size, **guarded(lambda: what(case, scale, device)), **machine(device)}
    return {**row, "took_seconds": round(time.perf_counter() - start, 2)}


def measure_step(case: Case, scale: Scale, device: str, *, steps: int = 0, **options: Any) -> dict[str, Any]:
    """Memory and time of training steps.

    Args:
        case: with a number as its batch.
        scale: sizes.
        device: "cpu" or "cuda".
        steps: that are timed; 0 for as many as ``scale`` wants.
        options: of :func:`gpu_cases.build`.
    """
    start = time.perf_counter()
    # What an earlier model left behind is not this one's.
    foreign = torch.cuda.memory_allocated() if device == "cuda" else 0
    step = build(case, scale, device, **options)
    row: dict[str, Any] = {"build_seconds": round(time.perf_counter() - start, 2), "foreign_bytes": foreign}
    if case.network == SEW:
        row["neurons"] = neurons_of_spikingjelly(device)
    if case.variant == "compiled":
        step = step._replace(model=torch.compile(step.model, dynamic=False))  # type: ignore[arg-type]
    try:
        if case.variant.startswith("graph"):
            passes, memory = captured(step, foreign)
        else:
            passes = eager(step)
            passes(int)  # workspaces, choices of algorithms, compilation
            memory = peak_memory(step, lambda: passes(int), device, foreign)
        return {**row, **memory, **step_times(step, passes, scale, device, steps)}
    finally:
        release(step)


def eager(step: Step) -> Passes:
    """Forward and backward pass, operation by operation."""

    def passes(mark: Mark) -> None:
        step.model.zero_grad(set_to_none=True)
        loss = step.forward()
        mark()
        loss.backward()

    return passes


def captured(step: Step, foreign: int) -> tuple[Passes, dict[str, Any]]:
    """Both passes as one CUDA graph, and the memory it was captured in; as PyTorch's notes on CUDA graphs say."""
    passes = eager(step)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            passes(int)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()

    def capture() -> None:
        with torch.cuda.graph(graph):
            passes(int)

    return lambda _: graph.replay(), peak_memory(step, capture, "cuda", foreign)


def peak_memory(step: Step, run: Callable[[], None], device: str, foreign: int = 0) -> dict[str, Any]:
    """Bytes at the peak of forward and backward pass.

    Args:
        step: whose memory it is.
        run: forward and backward pass.
        device: on "cuda" what PyTorch allocated is counted, workspaces included, on "cpu" the live tensors.
        foreign: bytes that were there before the model, and do not count.

    Returns:
        ``peak_bytes``, all of it; ``working_bytes``, without parameters, buffers, gradients and inputs, and
        ``bytes_per_picture``, its share. A gradient that is not a parameter's own yet counts as working memory.
    """
    parameters = list(step.model.parameters())
    held = sum(t.nbytes for t in (*parameters, *step.model.buffers(), *step.inputs))
    step.model.zero_grad(set_to_none=True)
    if device == "cpu":
        inputs = sum(t.nbytes for t in step.inputs)
        working = sum(footprint(step.model, step.inputs, step.forward).peak.values()) - inputs
        peak = working + held + sum(p.nbytes for p in parameters)
    else:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        gradients = _GradientsAtThePeak()
        hooks = [p.register_post_accumulate_grad_hook(gradients.add) for p in parameters if p.requires_grad]
        run()
        for hook in hooks:
            hook.remove()
        gradients.look()
        peak = gradients.peak - foreign
        working = peak - held - gradients.at_peak
    return {
        "peak_bytes": peak, "working_bytes": working, "bytes_per_picture": working / len(step.inputs[0]),
        "parameters": sum(p.numel() for p in parameters),
    }  # fmt: skip


class _GradientsAtThePeak:
    """Follows which gradients were there when memory was highest: between one gradient and the next it can only grow."""

    def __init__(self) -> None:
        self.peak = self.at_peak = self.now = 0

    def add(self, parameter: nn.Parameter) -> None:
        self.look()
        assert parameter.grad is not None
        self.now += parameter.grad.nbytes

    def look(self) -> None:
        """Note a new highest mark."""
        highest = torch.cuda.max_memory_allocated()
        if highest > self.peak:
            self.peak, self.at_peak = highest, self.now


def step_times(step: Step, passes: Passes, scale: Scale, device: str, steps: int) -> dict[str, Any]:
    """Median times of both passes, and of the optimizer's step behind them, in milliseconds."""
    optimizer = torch.optim.AdamW(step.model.parameters(), lr=1e-5, fused=True)

    def turn() -> list[Any]:
        marks = [_mark(device)]
        passes(lambda: marks.append(_mark(device)))
        marks.append(_mark(device))
        optimizer.step()
        return [*marks, _mark(device)]

    for _ in range(WARM_UP - 2):  # two were taken to measure memory
        turn()
    _wait(device)
    start = time.perf_counter()
    turn()
    _wait(device)
    # No waiting in between from here on, so that the processor can run ahead as it does in training.
    count = steps or max(scale.steps, math.ceil(scale.seconds / (time.perf_counter() - start)))
    turns = [turn() for _ in range(count)]
    _wait(device)
    passes_ms = statistics.median(_between(marks[0], marks[-2]) for marks in turns)
    optimizer_ms = statistics.median(_between(marks[-2], marks[-1]) for marks in turns)
    batch = len(step.inputs[0])
    row: dict[str, Any] = {
        "step_ms": passes_ms, "optimizer_ms": optimizer_ms, "timed_steps": count,
        "fastest_ms": min(_between(marks[0], marks[-2]) for marks in turns),
        "slowest_ms": max(_between(marks[0], marks[-2]) for marks in turns),
        "pictures_per_second": 1e3 * batch / passes_ms,
        "pictures_per_second_with_optimizer": 1e3 * batch / (passes_ms + optimizer_ms),
    }  # fmt: skip
    if len(turns[0]) == 4:
        row["forward_ms"] = statistics.median(_between(marks[0], marks[1]) for marks in turns)
    return row


def _mark(device: str) -> Any:
    if device == "cpu":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(first: Any, second: Any) -> float:
    """Milliseconds from one mark to the next."""
    return 1e3 * (second - first) if isinstance(first, float) else first.elapsed_time(second)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def find_largest(case: Case, scale: Scale, device: str) -> dict[str, Any]:
    """The largest batch of which a training step fits on the card, to 5 %, and that step's figures.

    The first guess is the batch at which memory is full if it grows as up to a middle batch; what follows is a bisection.
    """
    if device == "cpu":
        raise UnavailableError("needs CUDA.")
    _, whole = torch.cuda.mem_get_info()
    batch, fits, fails, reason = scale.batches[1], 0, 0, OUT_OF_MEMORY
    peaks = {0: 0}
    for _ in range(ATTEMPTS):
        tried = guarded(lambda batch=batch: _attempt(case._replace(batch=batch), scale, device))
        if is_broken():
            raise RuntimeError(f"batch {batch} ended with {tried.get('error')}")
        if "error" in tried:
            fails, reason = batch, tried["error"]
        else:
            fits = batch
        if fits and fails and fails <= 1.05 * fits:
            break
        if not fails:
            before, peaks[batch] = max(peaks), tried["peak_bytes"]
            growth = (peaks[batch] - peaks[before]) / (batch - before)
            batch += max(batch // 20 + 1, int((0.97 * whole - peaks[batch]) / growth))
        else:
            batch = (fits + fails) // 2
    if not fits:
        raise torch.OutOfMemoryError
    best = guarded(lambda: measure_step(case._replace(batch=fits), scale, device, steps=3))
    return {**best, "largest": fits, "failed": fails, "reason": reason}


def _attempt(case: Case, scale: Scale, device: str) -> dict[str, Any]:
    """One step, beside as much memory as AdamW's state takes."""
    step = build(case, scale, device)
    state = [torch.empty_like(p) for p in step.model.parameters() for _ in range(2)]
    try:
        return peak_memory(step, lambda: eager(step)(int), device)
    finally:
        release(step)
        del state
