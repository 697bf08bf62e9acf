"""The largest batch of a training that fits into a memory. What was counted once is kept in a file: asked again, the answer
comes without loading PyTorch."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from trevsnn.data.part import CACHE
from trevsnn.errors import RunError, UsageError
from trevsnn.files import write_file
from trevsnn.network.keep import UNITS
from trevsnn.run.config import RunConfig, to_dict

#: Batches of one process up to which steps are counted on tensors without data, which takes the longer the more slices there
#: are. Beyond, the line through the largest and half of it goes on: a prediction, no bound.
COUNTED = {"cpu": 64, "cuda": 512}
COUNTED_REAL = 2**16
#: On CUDA, beside the tensors. Of the tensors of a step: allocated were 9.3 MB per picture where 9.2 were counted, and 11.3
#: where 11.3 were (H100, H200, docs/results/gpu.md). For CUDA itself, its libraries and holes between tensors: an
#: assumption, not measured.
CUDA_SHARE, CUDA_FIXED = 0.02, 2**30
REAL_BELOW = 10**9  # bytes to fit into up to which a CPU's step is counted on real tensors, which is faster

#: What kind of device a training step is planned for.
Device = Literal["cpu", "cuda"]
#: Bytes of a process by part: parameters, gradients, what layers keep, and so on.
Parts = Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Plan:
    """The largest batch that fits.

    Attributes:
        batch: items that one process computes at a time.
        batch_size: of a training step, in all processes and all ``accumulate`` parts together.
        parts: bytes of each process at the peak, by part.
        total: their sum.
        too_large: the next batch that was counted and does not fit; None where ``batch`` lies beyond what was counted.
        counted: the batches that were counted, in this call or an earlier one.
    """

    batch: int
    batch_size: int
    parts: Parts
    total: float
    too_large: int | None
    counted: tuple[int, ...]


def bytes_of(text: str) -> int:
    """The bytes of "24GB"; units are MB, GB, MiB and GiB.

    Raises:
        UsageError: it says no amount.
    """
    match = re.fullmatch(rf"(\d+(?:\.\d+)?) ?({'|'.join(UNITS)})", text)
    if match is None or not float(match[1]):
        raise UsageError(f"--fits is {text!r}; give an amount of memory, such as 24GB. Units are {', '.join(UNITS)}.")
    return int(float(match[1]) * UNITS[match[2]])


def plan_batch(
    config: RunConfig,
    nbytes: int,
    *,
    device: Device = "cpu",
    processes: int = 1,
    cache: Path | None = CACHE,
    tell: Callable[[int], None] = lambda batch: None,
) -> Plan:
    """The largest batch with which a run's training steps fit into a memory: parameters, gradients, optimizer, averaged
    weights, buffers and what forward and backward pass keep, and on CUDA an allowance for what is no tensor.

    Of batches above 64 it is the largest up to 1/64. Triton kernels need less than the plain operations that are counted.
    Outside the sum are, on a CPU, the libraries' own workspace and the loading of data.

    Args:
        config: of the run; its ``batch_size`` does not count.
        nbytes: memory of each process's device, bytes.
        device: what kind it is; it need not be there.
        processes: that share a training step.
        cache: folder for what was counted; None for none.
        tell: is told of every batch before its step is counted, which takes seconds to minutes.

    Returns:
        The batch, and the bytes of each process by part.

    Raises:
        UsageError: the smallest batch, of 2 items, does not fit, or the config is one whose steps cannot be counted (``cuda_graph``, or
            ``model.keep`` in percent on CUDA).
    """
    _check(config, device)
    counts = _Counts(config, device, nbytes, cache, tell)
    all_gradients = processes > 1 or config.accumulate > 1  # which are there from the beginning then

    def parts(batch: int) -> Parts:
        return _parts(counts.standing, counts.step(batch), device, all_gradients)

    def total(batch: int) -> float:
        return sum(parts(batch).values())

    unit, limit = (2 if config.data.mixes else 1), counts.limit
    if total(2) > nbytes:
        raise UsageError(_impossible(total(2), nbytes, config))
    batch, too_large = _largest(total, nbytes, unit, limit)
    found = parts(batch)
    if batch == limit and too_large is None:
        batch, found = _beyond(parts, nbytes, unit, limit)
    return Plan(batch, batch * processes * config.accumulate, found, sum(found.values()), too_large, counts.batches)


def _largest(total: Callable[[int], float], nbytes: int, unit: int, limit: int) -> tuple[int, int | None]:
    """The largest batch up to ``limit`` that fits, and one that does not, close to it; None if the limit fits."""
    fits, before, too_large, guess = 2, 2, None, 8
    turn = 0
    while too_large is None or too_large - fits > max(unit, fits // 64):
        if total(guess) <= nbytes:
            before, fits = fits, guess
            if fits == limit:
                break
        else:
            too_large = guess
        turn += 1
        low, high = (before, fits) if too_large is None else (fits, too_large)
        slope = max((total(high) - total(low)) / (high - low), 1.0)
        guess = int(low + (nbytes - total(low)) / slope)
        if too_large is None:
            guess = min(guess, 4 * fits, limit)
        elif turn % 3 == 0:  # a line may come closer from one side only
            guess = (fits + too_large) // 2
        guess = max(guess // unit * unit, fits + unit)
        guess = min(guess, limit) if too_large is None else min(guess, too_large - unit)
    return fits, too_large


def _beyond(parts: Callable[[int], Parts], nbytes: int, unit: int, limit: int) -> tuple[int, Parts]:
    """The largest batch, from ``limit`` on, on the line through what half of it and all of it take."""
    half, whole = parts(limit // 2), parts(limit)

    def at(batch: int) -> Parts:
        names = {**whole, **half}
        ahead = 2 * (batch - limit) / limit
        return {n: max(0.0, whole.get(n, 0) + ahead * (whole.get(n, 0) - half.get(n, 0))) for n in names}

    grows = sum(at(2 * limit).values()) > sum(whole.values())
    most = limit + int(limit * nbytes) if grows else limit
    steps = range(limit, most, unit)
    batch = steps[bisect_right(steps, nbytes, key=lambda b: sum(at(b).values())) - 1] if len(steps) else limit
    return batch, at(batch)


def _parts(standing: Parts, step: Mapping[str, Parts], device: Device, all_gradients: bool) -> Parts:
    """Bytes at the larger one of two peaks: that of forward and backward pass, and that of the optimizer."""
    passes = dict(step["activations" if all_gradients else "alone"])
    made = standing["gradients"] if all_gradients else passes.pop("parameter gradients", 0)
    updating = {"optimizer's step": standing["optimizer's step"]}
    peaks = [(made, passes), (standing["gradients"], updating)]
    gradients, others = max(peaks, key=lambda peak: peak[0] + sum(peak[1].values()))
    found = {name: standing[name] for name in ("parameters", "buffers", "optimizer", "averaged weights")}
    found |= {"gradients": gradients, **others}
    if device == "cuda":
        found["workspace"] = CUDA_FIXED + CUDA_SHARE * sum(others.values())
    return {name: float(nbytes) for name, nbytes in found.items() if nbytes}


def _check(config: RunConfig, device: Device) -> None:
    if config.cuda_graph:
        raise UsageError("cuda_graph keeps a graph's own memory, which is not counted here: plan without it.")
    keep = config.model.keep
    if device == "cuda" and keep is not None and keep.endswith("%"):
        raise UsageError(f"model.keep is {keep!r}, a share of a card that need not be here: give it in GB.")


def _impossible(needed: float, nbytes: int, config: RunConfig) -> str:
    ways = ["data.image_size lower"]
    if config.model.backprop == "autograd":
        ways.append("model.backprop exact")
    elif config.model.slice_bytes is None:
        ways.append("model.slice_bytes lower")
    ways += ["a smaller network"] if config.optim.name == "muon" else ["optim.name muon"]
    return (
        f"a step of 2 items, the fewest that a process can take, needs {_amount(needed)}, and --fits is {_amount(nbytes)}: "
        f"set {', or '.join(ways)}."
    )


def _amount(nbytes: float) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"


class _Counts:
    """What was counted of a config's training, in memory and in a file of the cache."""

    def __init__(
        self, config: RunConfig, device: Device, nbytes: int, cache: Path | None, tell: Callable[[int], None]
    ) -> None:
        self._config, self._cuda, self._tell = config, device == "cuda", tell
        self._fake = self._cuda or nbytes > REAL_BELOW
        self._file = None if cache is None else cache / "plans" / f"{_key(config, device)}.json"
        self._known: dict[str, Any] = {"standing": None, "steps": {}}
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):
                self._known = json.loads(self._file.read_text())

    @property
    def limit(self) -> int:
        """The largest batch that is counted."""
        return COUNTED["cuda" if self._cuda else "cpu"] if self._fake else COUNTED_REAL

    @property
    def batches(self) -> tuple[int, ...]:
        return tuple(sorted(int(batch) for batch in self._known["steps"]))

    @property
    def standing(self) -> Parts:
        if self._known["standing"] is None:
            from trevsnn.measure.training import count_standing

            self._known["standing"] = count_standing(self._config)
            self._save()
        return self._known["standing"]

    def step(self, batch: int) -> Mapping[str, Parts]:
        steps = self._known["steps"]
        if str(batch) not in steps:
            from trevsnn.measure.training import count_step, for_device

            self._tell(batch)
            steps[str(batch)] = count_step(for_device(self._config, self._cuda), batch, fake=self._fake)
            self._save()
        return steps[str(batch)]

    def _save(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError, RunError):  # it can be counted again
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_file(self._file, json.dumps(self._known).encode())


def _key(config: RunConfig, device: Device) -> str:
    """Of all that the counts depend on: the network, the step, the optimizer, and the code that computes them."""
    plain, data = to_dict(config), config.data
    package = Path(__file__).parents[1]
    code = hashlib.sha256()
    for folder in ("measure", "network", "neurons", "reversible", "train"):
        for file in sorted((package / folder).rglob("*.py")):
            code.update(file.read_bytes())
    parts = [
        plain["model"], data.image_size, data.rows, config.precision, config.loss, config.freeze, config.optim.name,
        config.optim.decay_gains, config.ema_decay is None, device, version("torch"), version("timm"), code.hexdigest(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
