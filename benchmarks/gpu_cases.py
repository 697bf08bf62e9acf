"""What benchmarks/gpu.py measures: which networks at which sizes, the most telling first, and how each is built."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from trevsnn import TRevSNNConfig, create_model, deep_supervision_loss

OUT_OF_MEMORY = "out of memory"
AS_CONFIGURED = "as configured"  # as a variant: what the library chooses by itself
LARGEST = 0  # as a batch: the largest that fits


class UnavailableError(Exception):
    """This cannot be measured here; the message, a sentence, is the result."""


class Scale(NamedTuple):
    """Sizes of a run: the real ones, or tiny ones to try everything on a CPU."""

    size: int
    classes: int
    batches: tuple[int, int, int]  # largest first
    timesteps: tuple[int, ...]  # the usual T first
    steps: int  # that are timed, at least
    seconds: float  # that they take, at least
    model: dict[str, Any]  # overrides of the preset

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a picture."""
        return 3, self.size, self.size


REAL = Scale(224, 1000, (512, 256, 64), (4, 8, 16, 32), steps=5, seconds=1.0, model={})
SMALL = Scale(32, 10, (4, 3, 2), (2, 3), steps=2, seconds=0.0, model={"channels": (8, 8, 8, 8)})


class Case(NamedTuple):
    """One measurement.

    ``mode`` is the backward pass of ours, or the level of SpikingJelly's memory optimisation. ``variant`` is how it is
    computed: "eager"; "kernels", by this library's own; "channels-last"; "compiled"; "graph", as one CUDA graph; with
    "float16" in float16, in place of bfloat16.
    """

    network: str
    mode: str
    variant: str
    timesteps: int
    batch: int

    @property
    def key(self) -> str:
        """Its name in the file of results."""
        batch = "largest" if self.batch == LARGEST else self.batch
        return f"{self.name}, T = {self.timesteps}, {batch}"

    @property
    def name(self) -> str:
        """Its name in a table."""
        return ", ".join(part for part in (self.network, self.mode, self.variant) if part not in ("", "eager"))


TINY, SMALL_NETWORK, SEW, RESNET = "trevsnn tiny", "trevsnn small", "SEW-ResNet-18", "ResNet-18"
_CORE = [
    (TINY, "exact", "eager"), (TINY, "exact", "kernels"), (TINY, "autograd", "eager"),
    (SEW, "memopt 0", "eager"), (SEW, "memopt 1", "eager"),
]  # fmt: skip
_SEARCHED = (SEW, "memopt 4", "eager")  # whose search takes long at large T
_REVERSIBLE = [(TINY, "reversible", "eager"), (TINY, "reversible", "kernels")]
_PEERS_AT_THEIR_BEST = [(SEW, "memopt 0", "channels-last"), (SEW, "memopt 1", "channels-last")]
_SMALL = [(SMALL_NETWORK, mode, variant) for mode, variant in (
    ("exact", "eager"), ("exact", "kernels"), ("reversible", "eager"), ("reversible", "kernels"), ("autograd", "eager"),
)]  # fmt: skip
_FLOAT16 = [
    (TINY, "exact", "float16"), (TINY, "exact", "kernels in float16"), (TINY, "autograd", "float16"),
]  # fmt: skip
_OWN_PROCESS = [
    (TINY, "exact", "graph"), (TINY, "exact", "graph of kernels"), (TINY, "reversible", "graph"),
    (TINY, "autograd", "graph"), (RESNET, "", "graph"), (RESNET, "", "compiled"), (TINY, "autograd", "compiled"),
    (TINY, "exact", "compiled"), (TINY, "reversible", "compiled"),
    *((SMALL_NETWORK, mode, variant) for mode, variant in (
        ("exact", "graph"), ("exact", "graph of kernels"), ("autograd", "graph"), ("autograd", "compiled"),
        ("exact", "compiled"), ("reversible", "compiled"),
    )),
]  # fmt: skip


def memory_cases(scale: Scale) -> list[Case]:
    """All of them, each once, the most telling first, so that a run may end at any time."""
    return list(dict.fromkeys(_by_worth(scale)))


def _by_worth(scale: Scale) -> Iterator[Case]:
    usual, *later = scale.timesteps
    large, middle, little = scale.batches
    for batch in scale.batches:
        yield from (Case(*what, usual, batch) for what in [*_CORE, _SEARCHED, (RESNET, "", "eager")])
    if large >= 512:
        yield Case(TINY, "exact", "kernels", usual, 4 * large)
    yield from (Case(TINY, "exact", "graph of kernels", usual, batch) for batch in (little, large))
    yield from (Case(*what, usual, middle) for what in _FLOAT16)
    for timesteps in later:
        yield from (Case(*what, timesteps, little) for what in _CORE)
    for batch in (middle, large, little):
        more = [*_REVERSIBLE, *_PEERS_AT_THEIR_BEST]
        yield from (Case(*what, usual, batch) for what in more)
    for timesteps in later:
        yield from (Case(*what, timesteps, little) for what in _REVERSIBLE)
    for timesteps in later:
        yield from (Case(*what, timesteps, middle) for what in _CORE)
    yield from (Case(*_SEARCHED, timesteps, little) for timesteps in later)
    for batch in (middle, large, little):
        yield from (Case(*what, usual, batch) for what in _SMALL)
    for timesteps in later:
        yield from (Case(*what, timesteps, little) for what in _SMALL)
    yield from (
        Case(*what, usual, LARGEST) for what in [*_CORE, _SEARCHED, _REVERSIBLE[0], (RESNET, "", "eager"), *_SMALL[:2]]
    )
    for what in _OWN_PROCESS:
        yield from (Case(*what, usual, batch) for batch in ([middle] if what[2] == "compiled" else [little, middle]))
    for timesteps in later:
        yield from (Case(*what, timesteps, large) for what in _CORE[:2])


def needs_own_process(case: Case) -> bool:
    """Whether it may take for ever, or leave the device's state behind in pieces."""
    return case.variant == "compiled" or case.variant.startswith("graph")


class Step(NamedTuple):
    """A model in training mode on its device, what it is trained on, and its forward pass to a loss ()."""

    model: nn.Module
    inputs: tuple[Tensor, Tensor]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    low: torch.dtype = torch.bfloat16

    def forward(self) -> Tensor:
        """The loss, in 16 bits where autocast says so. It is not scaled, which takes no time."""
        x, target = self.inputs
        with torch.autocast(x.device.type, dtype=self.low):
            return self.loss(self.model, x, target)


def build(case: Case, scale: Scale, device: str, *, channels_last: bool = True, **overrides: Any) -> Step:
    """Build a case.

    Args:
        case: with a number as its batch.
        scale: sizes.
        device: "cpu" or "cuda".
        channels_last: the layout of this library's weights and pictures, as ``trevsnn train`` has it.
        overrides: fields of this library's config.

    Raises:
        UnavailableError: the case needs another device, or a newer version.
    """
    if device == "cpu" and (needs_own_process(case) or "kernels" in case.variant):
        raise UnavailableError("needs CUDA.")
    torch.manual_seed(0)
    layout = torch.channels_last if (channels_last and case.network != SEW) or case.variant == "channels-last" else None
    x = torch.randn(case.batch, *scale.shape, device=device)
    x = x if layout is None else x.to(memory_format=layout)
    inputs = x, torch.randint(scale.classes, (case.batch,), device=device)
    if case.network == SEW:
        model = sew_resnet18(scale.classes).to(device=device, memory_format=layout)
        loss = partial(_loss_over_time, case.timesteps)
        if level := int(case.mode.split()[-1]):
            _optimise(model, level, case.timesteps, scale, device)
    elif case.network == RESNET:
        from torchvision.models import resnet18

        model = resnet18(num_classes=scale.classes).to(device=device, memory_format=layout)
        loss = _loss_of_logits
    else:
        overrides = {**scale.model, **_kernels(case.variant), **overrides}
        model = create_model(
            case.network.replace(" ", "_"), timesteps=case.timesteps, num_classes=scale.classes, backprop=case.mode,
            **overrides,
        ).to(device=device, memory_format=layout)  # type: ignore[call-overload]  # fmt: skip
        if case.mode == "reversible":  # which refuses many timesteps otherwise; memory and time do not depend on alpha
            for name, parameter in model.named_parameters():
                if "alphas" in name:
                    nn.init.ones_(parameter)
        loss = _loss_of_heads
    return Step(model.train(), inputs, loss, torch.float16 if "float16" in case.variant else torch.bfloat16)


def release(step: Step) -> None:
    """Let go of what a model keeps between steps.

    Neurons that SpikingJelly checkpoints keep their last graph, and with it the model, out of the garbage collector's reach.
    """
    if any(module.__class__.__module__.startswith("spikingjelly") for module in step.model.modules()):
        from spikingjelly.activation_based import functional

        functional.reset_net(step.model)


def _kernels(variant: str) -> dict[str, str]:
    """The config's choice of kernels, where this version has one."""
    own = "kernels" in variant
    if variant == AS_CONFIGURED:
        return {}
    if any(field.name == "kernels" for field in fields(TRevSNNConfig)):
        return {"kernels": "triton" if own else "eager"}
    if own:
        raise UnavailableError("this version has no kernels of its own.")
    return {}


def _loss_of_heads(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return deep_supervision_loss(model(x, all_heads=True), target)


def _loss_of_logits(model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(x), target)


def _loss_over_time(timesteps: int, model: nn.Module, x: Tensor, target: Tensor) -> Tensor:
    from spikingjelly.activation_based import functional

    functional.reset_net(model)
    return nn.functional.cross_entropy(model(x.expand(timesteps, *x.shape)).mean(0), target)


def sew_resnet18(classes: int) -> nn.Module:
    """SEW-ResNet-18 with element-wise addition and integrate-and-fire neurons (Fang et al., NeurIPS 2021).

    SpikingJelly itself chooses its neurons' fastest implementation on a device: see :func:`neurons_of_spikingjelly`.
    """
    from spikingjelly.activation_based import functional, neuron, surrogate
    from spikingjelly.activation_based.model import sew_resnet

    model = sew_resnet.sew_resnet18(
        cnf="ADD", num_classes=classes, spiking_neuron=neuron.IFNode, surrogate_function=surrogate.ATan(),
        detach_reset=True,
    )  # fmt: skip
    functional.set_step_mode(model, "m")
    return model.train()


def neurons_of_spikingjelly(device: str) -> str:
    """What computes SpikingJelly's integrate-and-fire neurons on a device: "cuda", "triton" or "torch"."""
    if device == "cpu":
        return "torch"
    from spikingjelly._ops import if_

    return str(if_._selection.diagnostics(torch.device(device))["implementation"])


PROBE = 8  # pictures with which SpikingJelly looks for what to keep


def _optimise(model: nn.Module, level: int, timesteps: int, scale: Scale, device: str) -> None:
    """SpikingJelly's memory optimisation, with the choices that its own builder makes for SEW-ResNet."""
    from spikingjelly.activation_based import functional, memopt
    from spikingjelly.activation_based.model import sew_resnet

    x = torch.randn(PROBE, *scale.shape, device=device)

    def forward(probed: nn.Module) -> Tensor:
        functional.reset_net(probed)
        with torch.autocast(device, dtype=torch.bfloat16):
            return probed(x.expand(timesteps, *x.shape))

    choices = sew_resnet.SEWResNet34Builder
    memopt.optimize_memory(
        model, sew_resnet.BasicBlock, forward, level=level, split_fn=choices._memopt_split,  # type: ignore[arg-type]
        can_chunk=choices._memopt_can_chunk,
    )  # fmt: skip
    functional.reset_net(model)
