"""Training memory and step time of trevsnn beside its peers, in one run on the same pictures.

    pip install -e '.[bench]'
    python benchmarks/memory.py              # tables on the terminal
    python benchmarks/memory.py --write      # and into docs/results-memory.md, with the picture

Memory is what a tracker of live storages counts at the peak of a training step, without parameters, their gradients and
buffers. Times are medians of forward and backward pass, all models taking turns. Peers are built by SpikingJelly and
torchvision with their own defaults; "memopt" is SpikingJelly's memory optimisation at level 1, checkpointing with
compressed spikes, the only level that runs without CUDA.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from rich.console import Console
from spikingjelly.activation_based import functional, memopt, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer
from torch import Tensor, nn

from trevsnn import create_model, deep_supervision_loss
from trevsnn.measure.memory import footprint, memory_picture
from trevsnn.measure.speed import step_times

DOCS = Path(__file__).parents[1] / "docs"
TIMESTEPS = (4, 8, 16, 32)
SIZE, CLASSES = 224, 1000


class Peer(NamedTuple):
    """A model in training mode and its forward pass to a loss."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]


def trevsnn_tiny(mode: str) -> Callable[[int], Peer]:
    """Ours. alpha is 1 where ``reversible`` would refuse T otherwise; its memory does not depend on it."""

    def build(timesteps: int) -> Peer:
        model = create_model("trevsnn_tiny", timesteps=timesteps, num_classes=CLASSES, backprop=mode).train()
        if mode == "reversible":
            for name, parameter in model.named_parameters():
                if "alphas" in name:
                    nn.init.ones_(parameter)
        return Peer(model, lambda x, target: deep_supervision_loss(model.forward_heads(x), target))

    return build


def sew(depth: int, *, optimised: bool) -> Callable[[int], Peer]:
    """SEW-ResNet with element-wise addition and integrate-and-fire neurons (Fang et al., NeurIPS 2021)."""

    def build(timesteps: int) -> Peer:
        make = {18: sew_resnet.sew_resnet18, 34: sew_resnet.sew_resnet34}[depth]
        model = make(
            cnf="ADD", num_classes=CLASSES, spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(),
            detach_reset=True,
        ).train()  # fmt: skip
        functional.set_step_mode(model, "m")
        if optimised:
            _optimise(model, sew_resnet.BasicBlock, timesteps)
        return Peer(model, lambda x, target: _loss_over_time(model, x, target, timesteps))

    return build


def spikformer_ti(*, optimised: bool) -> Callable[[int], Peer]:
    """Spikformer-Ti, 4 blocks of width 256 (Zhou et al., ICLR 2023)."""

    def build(timesteps: int) -> Peer:
        model = spikformer.spikformer_ti(T=timesteps, num_classes=CLASSES).train()
        if optimised:
            _optimise(model, (spikformer.SpikformerBlock, spikformer.SpikformerConv2dBNLIF), timesteps)
        return Peer(model, lambda x, target: _loss_over_time(model, x, target, timesteps))

    return build


def resnet18(_: int) -> Peer:
    """The ordinary network of the same size class: no spikes and no time."""
    model = torchvision.models.resnet18(num_classes=CLASSES).train()
    return Peer(model, lambda x, target: nn.functional.cross_entropy(model(x), target))


PEERS: dict[str, Callable[[int], Peer]] = {
    "trevsnn tiny, exact": trevsnn_tiny("exact"),
    "trevsnn tiny, reversible": trevsnn_tiny("reversible"),
    "trevsnn tiny, autograd": trevsnn_tiny("autograd"),
    "SEW-ResNet-18": sew(18, optimised=False),
    "SEW-ResNet-18, memopt": sew(18, optimised=True),
    "SEW-ResNet-34": sew(34, optimised=False),
    "SEW-ResNet-34, memopt": sew(34, optimised=True),
    "Spikformer-Ti": spikformer_ti(optimised=False),
    "Spikformer-Ti, memopt": spikformer_ti(optimised=True),
    "ResNet-18 (no spikes)": resnet18,
}


def _loss_over_time(model: nn.Module, x: Tensor, target: Tensor, timesteps: int) -> Tensor:
    functional.reset_net(model)
    logits = model(x.expand(timesteps, *x.shape))
    return nn.functional.cross_entropy(logits.mean(0) if logits.dim() == 3 else logits, target)


def _optimise(model: nn.Module, targets: Any, timesteps: int) -> None:
    def forward(probed: nn.Module) -> Tensor:
        functional.reset_net(probed)
        return probed(torch.randn(timesteps, 1, 3, SIZE, SIZE))

    memopt.optimize_memory(model, targets, forward, level=1)
    functional.reset_net(model)


def measure(batch: int, slope_batch: int, repeats: int, console: Console) -> dict[str, Any]:
    """Everything the tables show."""
    x, target = torch.randn(batch, 3, SIZE, SIZE), torch.randint(CLASSES, (batch,))
    rows: list[dict[str, Any]] = []
    for name, build in PEERS.items():
        row: dict[str, Any] = {"model": name, "peak_bytes": {}}
        for timesteps in (TIMESTEPS[0],) if build is resnet18 else TIMESTEPS:
            console.print(f"memory: {name}, T = {timesteps}", highlight=False)
            model, loss = build(timesteps)
            few, classes = x[:slope_batch], target[:slope_batch]
            few_bytes = footprint(model, [few, classes], lambda: loss(few, classes))  # noqa: B023 - called at once
            row["peak_bytes"][timesteps] = sum(few_bytes.peak.values()) / slope_batch
            if timesteps == TIMESTEPS[0]:
                row["parameters"] = sum(p.numel() for p in model.parameters())
                model.zero_grad()
                all_bytes = footprint(model, [x, target], lambda: loss(x, target))  # noqa: B023 - called at once
                row["bytes_per_picture"] = sum(all_bytes.peak.values()) / batch
                row["input_bytes"] = all_bytes.peak["input"] / batch
        peaks = row["peak_bytes"]
        row["slope"] = (
            (peaks[TIMESTEPS[-1]] - peaks[TIMESTEPS[0]]) / (TIMESTEPS[-1] - TIMESTEPS[0]) if len(peaks) > 1 else 0
        )
        rows.append(row)
    console.print("times", highlight=False)
    built = {name: build(TIMESTEPS[0]) for name, build in PEERS.items()}
    steps = {name: (peer.model, lambda peer=peer: peer.loss(x, target)) for name, peer in built.items()}
    for row, times in zip(rows, step_times(steps, repeats=repeats).values(), strict=True):
        row.update({f"{name}_ms": 1000 * seconds / batch for name, seconds in times.items()})
    return {"batch": batch, "slope_batch": slope_batch, "repeats": repeats, "machine": machine(), "rows": rows}


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    cpu = (
        re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if Path("/proc/cpuinfo").exists() else None
    )
    packages = ("trevsnn", "torch", "torchvision", "timm", "spikingjelly")
    return {
        "processor": cpu.group(1) if cpu else platform.processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def tables(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    text = io.StringIO()
    setup = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    print(f"T = {TIMESTEPS[0]}, float32, {results['batch']} pictures of {SIZE} x {SIZE}; {setup}.\n", file=text)
    print(
        "| model | parameters, M | memory, MB per picture | forward, ms | backward, ms | step, ms per picture |",
        file=text,
    )
    print("|---|---:|---:|---:|---:|---:|", file=text)
    for row in results["rows"]:
        print(
            f"| {row['model']} | {row['parameters'] / 1e6:.1f} | {row['bytes_per_picture'] / 1e6:.1f} | "
            f"{row['forward_ms']:.0f} | {row['backward_ms']:.0f} | {row['step_ms']:.0f} |",
            file=text,
        )
    print(f"\nAgainst T ({results['slope_batch']} pictures, MB per picture):\n", file=text)
    print(f"| model | {' | '.join(f'T = {t}' for t in TIMESTEPS)} | MB per timestep |", file=text)
    print(f"|---|{'---:|' * (len(TIMESTEPS) + 1)}", file=text)
    for row in results["rows"]:
        if len(row["peak_bytes"]) > 1:
            cells = " | ".join(f"{row['peak_bytes'][t] / 1e6:.1f}" for t in TIMESTEPS)
            print(f"| {row['model']} | {cells} | {row['slope'] / 1e6:.3f} |", file=text)
    return text.getvalue()


def write(results: dict[str, Any]) -> None:
    """Put tables and picture into the documentation."""
    (DOCS / "results-memory.json").write_text(json.dumps(results, indent=1) + "\n")
    page = DOCS / "results-memory.md"
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{tables(results)}{end}{rest.split(end)[1]}")
    points = [
        {"model": row["model"], "timesteps": t, "peak_total": nbytes}
        for row in results["rows"]
        for t, nbytes in row["peak_bytes"].items()
        if len(row["peak_bytes"]) > 1
    ]
    title = f"Training memory, {results['slope_batch']} pictures of {SIZE} x {SIZE}, float32"
    memory_picture(points, title, label="model").savefig(DOCS / "images" / "memory-vs-t.png", dpi=110)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description="Training memory and step time beside peers.")
    parser.add_argument("--batch", type=int, default=8, help="pictures at T = 4")
    parser.add_argument("--slope_batch", type=int, default=4, help="pictures for memory against T")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns")
    parser.add_argument("--write", action="store_true", help="write docs/results-memory.md, .json and the picture")
    options = parser.parse_args()
    torch.manual_seed(0)
    console = Console()
    results = measure(options.batch, options.slope_batch, options.repeats, console)
    console.print(tables(results), soft_wrap=True, highlight=False)
    if options.write:
        write(results)


if __name__ == "__main__":
    main()
