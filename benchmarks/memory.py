"""Training memory and step time of trevsnn beside its peers, in one run on the same pictures.

    pip install -e '.[bench]'
    python benchmarks/memory.py              # tables on the terminal
    python benchmarks/memory.py --write      # and into docs/results/memory.md, with the picture
    python benchmarks/memory.py --write --against_t    # the table against T alone, which other work beside it does not change
    python benchmarks/memory.py --draw       # the picture again, of what was measured before
    python benchmarks/memory.py --only SEW-ResNet-18 --timesteps 16

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
import runpy
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from rich.console import Console
from spikingjelly.activation_based import functional, memopt, neuron, surrogate
from spikingjelly.activation_based.model import sew_resnet, spikformer
from torch import Tensor, nn

from trevsnn import __version__, create_model, deep_supervision_loss
from trevsnn.drawing import BLUE, GREEN, VERMILION
from trevsnn.files import figure_bytes, write_file
from trevsnn.measure.memory import footprint, memory_picture
from trevsnn.measure.speed import step_times
from trevsnn.train.summary import processor_name

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
TIMESTEPS = (4, 8, 16, 32, 64)
SIZE, CLASSES = 224, 1000


class Peer(NamedTuple):
    """A model in training mode and its forward pass to a loss."""

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]


#: Makes a peer with T timesteps.
Build = Callable[[int], Peer]


def trevsnn_tiny(mode: str) -> Build:
    """Ours. alpha is 1 where ``reversible`` would refuse T otherwise; its memory does not depend on it."""

    def build(timesteps: int) -> Peer:
        model = create_model("trevsnn_tiny", timesteps=timesteps, num_classes=CLASSES, backprop=mode).train()
        if mode == "reversible":
            for name, parameter in model.named_parameters():
                if "alphas" in name:
                    nn.init.ones_(parameter)
        return Peer(model, lambda x, target: deep_supervision_loss(model.forward_heads(x), target))

    return build


def lif(name: str) -> Build:
    """Ours again: an ordinary LIF network of examples/lif_networks.py, at 2 bits for each neuron and timestep."""
    build_network = runpy.run_path(str(ROOT / "examples" / "lif_networks.py"))[name]

    def build(timesteps: int) -> Peer:
        model = build_network(classes=CLASSES, timesteps=timesteps).to(memory_format=torch.channels_last).train()

        def loss(x: Tensor, target: Tensor) -> Tensor:
            logits_TBK = model(x.to(memory_format=torch.channels_last))
            return nn.functional.cross_entropy(logits_TBK.mean(0), target)

        return Peer(model, loss)

    return build


def sew(depth: int, *, optimised: bool) -> Build:
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


def spikformer_ti(*, optimised: bool) -> Build:
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


PEERS: dict[str, Build] = {
    "trevsnn tiny, exact": trevsnn_tiny("exact"),
    "trevsnn tiny, reversible": trevsnn_tiny("reversible"),
    "trevsnn tiny, autograd": trevsnn_tiny("autograd"),
    "SEW-ResNet-18, LIF, trevsnn exact": lif("sew_resnet18"),
    "SEW-ResNet-18": sew(18, optimised=False),
    "SEW-ResNet-18, memopt": sew(18, optimised=True),
    "SEW-ResNet-34": sew(34, optimised=False),
    "SEW-ResNet-34, memopt": sew(34, optimised=True),
    "Spikformer-Ti, LIF, trevsnn exact": lif("spikformer"),
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


def measure(peers: Mapping[str, Build], options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Everything the tables show."""
    batch = options.batch
    x, target = torch.randn(batch, 3, SIZE, SIZE), torch.randint(CLASSES, (batch,))
    few = [part[: options.slope_batch].clone() for part in (x, target)]  # a view would keep the storage of all alive
    before = json.loads((DOCS / "results" / "memory.json").read_text()) if options.against_t else {"rows": []}
    known = {row["model"]: row for row in before["rows"]}
    rows: list[dict[str, Any]] = []
    for name, build in peers.items():
        console.print(f"memory: {name}", highlight=False)
        row: dict[str, Any] = {"model": name, **known.get(name, {}), "peak_bytes": {}}
        for timesteps in () if build is resnet18 else TIMESTEPS:
            row["peak_bytes"][str(timesteps)] = _peak(build(timesteps), *few)  # as JSON has it
        peaks = list(row["peak_bytes"].values())
        row["slope"] = (peaks[-1] - peaks[0]) / (TIMESTEPS[-1] - TIMESTEPS[0]) if peaks else 0
        if not options.against_t:
            peer = build(options.timesteps)
            row["bytes_per_picture"] = _peak(peer, x, target)
            row["parameters"] = sum(p.numel() for p in peer.model.parameters())
        rows.append(row)
    if options.against_t:
        return {**before, "against_t": machine(), "rows": rows}
    console.print("times", highlight=False)
    built = {name: build(options.timesteps) for name, build in peers.items()}
    steps = {name: (peer.model, lambda peer=peer: peer.loss(x, target)) for name, peer in built.items()}
    for row, times in zip(rows, step_times(steps, repeats=options.repeats).values(), strict=True):
        row.update({f"{name}_ms": 1000 * seconds / batch for name, seconds in times.items()})
    asked = {name: getattr(options, name) for name in ("batch", "timesteps", "slope_batch", "only", "repeats")}
    return {**asked, "machine": machine(), "against_t": machine(), "rows": rows}


def _peak(peer: Peer, x: Tensor, target: Tensor) -> float:
    """Bytes per picture."""
    parts = footprint(peer.model, [x, target], lambda: peer.loss(x, target)).peak
    peer.model.zero_grad()
    return sum(parts.values()) / len(x)


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    return {
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "trevsnn": __version__,
        **{package: version(package) for package in ("torch", "torchvision", "timm", "spikingjelly")},
    }


def tables(results: dict[str, Any]) -> str:
    """The results in Markdown."""
    text = io.StringIO()
    setup = ", ".join(f"{key} {value}" for key, value in results["machine"].items())
    print(f"T = {results['timesteps']}, float32, {results['batch']} pictures of {SIZE} x {SIZE}; {setup}.\n", file=text)
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
        if row["peak_bytes"]:
            cells = " | ".join(f"{row['peak_bytes'][str(t)] / 1e6:.1f}" for t in TIMESTEPS)
            print(f"| {row['model']} | {cells} | {row['slope'] / 1e6:.3f} |", file=text)
    return text.getvalue()


def write(results: dict[str, Any]) -> None:
    """Put tables and picture into the documentation."""
    (DOCS / "results" / "memory.json").write_text(json.dumps(results, indent=1) + "\n")
    page = DOCS / "results" / "memory.md"
    begin, end = "<!-- measured: begin -->", "<!-- measured: end -->"
    before, rest = page.read_text().split(begin)
    page.write_text(f"{before}{begin}\n{tables(results)}{end}{rest.split(end)[1]}")
    draw(results)


#: What is drawn, under which name, and how: a colour for a network, broken where blocks are checkpointed, thick where the
#: backward pass is ours. SEW-ResNet-34 is left to the table: its lines run between the others.
LINES: dict[str, tuple[str, dict[str, Any]]] = {
    "trevsnn tiny, exact": ("trevsnn tiny, exact", {"color": BLUE, "linewidth": 3.5}),
    "trevsnn tiny, reversible": ("trevsnn tiny, reversible", {"color": BLUE, "linewidth": 2.5, "linestyle": ":"}),
    "trevsnn tiny, autograd": ("trevsnn tiny, autograd", {"color": BLUE, "linewidth": 1.2}),
    "SEW-ResNet-18, LIF, trevsnn exact": (
        "SEW-ResNet-18 (LIF), trevsnn exact", {"color": VERMILION, "linewidth": 3.5},
    ),
    "SEW-ResNet-18": ("SEW-ResNet-18, SpikingJelly", {"color": VERMILION, "linewidth": 1.2}),
    "SEW-ResNet-18, memopt": (
        "SEW-ResNet-18, SpikingJelly memopt", {"color": VERMILION, "linewidth": 1.2, "linestyle": "--"},
    ),
    "Spikformer-Ti, LIF, trevsnn exact": (
        "Spikformer-Ti (LIF), trevsnn exact", {"color": GREEN, "linewidth": 3.5, "linestyle": (0, (2, 1))},
    ),
    "Spikformer-Ti": ("Spikformer-Ti, SpikingJelly", {"color": GREEN, "linewidth": 1.2}),
    "Spikformer-Ti, memopt": (
        "Spikformer-Ti, SpikingJelly memopt", {"color": GREEN, "linewidth": 1.2, "linestyle": (0, (3, 3))},
    ),
}  # fmt: skip


def draw(results: dict[str, Any]) -> None:
    """Draw memory against T into the documentation."""
    points = [
        {"name": LINES[row["model"]][0], "timesteps": int(t), "peak_total": nbytes}
        for row in results["rows"]
        if row["model"] in LINES
        for t, nbytes in row["peak_bytes"].items()
    ]
    title = f"Memory of a training step, {results['slope_batch']} pictures of {SIZE} x {SIZE}, float32"
    figure = memory_picture(points, title, label="name", styles=dict(LINES.values()))
    write_file(DOCS / "images" / "memory-vs-t.png", figure_bytes(figure))


def main() -> None:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description="Training memory and step time beside peers.")
    parser.add_argument("--batch", type=int, default=8, help="pictures of the table with times")
    parser.add_argument("--timesteps", type=int, default=4, help="T of that table")
    parser.add_argument("--slope_batch", type=int, default=2, help="pictures for memory against T")
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--repeats", type=int, default=5, help="timed turns")
    parser.add_argument("--against_t", action="store_true", help="count memory against T alone, and time nothing")
    parser.add_argument("--write", action="store_true", help="write docs/results/memory.md, .json and the picture")
    parser.add_argument("--draw", action="store_true", help="draw the picture of docs/results/memory.json again")
    options = parser.parse_args()
    if options.draw:
        return draw(json.loads((DOCS / "results" / "memory.json").read_text()))
    torch.manual_seed(0)
    console = Console()
    results = measure({name: build for name, build in PEERS.items() if options.only in name}, options, console)
    console.print(tables(results), soft_wrap=True, highlight=False)
    if options.write:
        write(results)


if __name__ == "__main__":
    main()
