"""What ``trevsnn measure`` takes from a run's config, and the plan of ``--fits``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from json import dumps
from typing import Any, NamedTuple

from rich.table import Table

from trevsnn.backprop import BACKPROP_MODES, Backprop
from trevsnn.cli.parser import refusals_are_usage_errors
from trevsnn.data.config import DataConfig
from trevsnn.errors import UsageError
from trevsnn.measure import MeasuredPrecision
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.config import RunConfig, parse_config
from trevsnn.run.folder import RunFolder
from trevsnn.sizes import Size
from trevsnn.terminal import Terminal

#: Options of ``measure`` that say what a config says.
OF_A_CONFIG = ("model", "timesteps", "size", "batch", "precision", "slice_bytes", "keep", "links", "alphas")


class Named(NamedTuple):
    """What a config says of a step to measure, in the order of the options, and the config itself."""

    name: str
    network: TRevSNNConfig
    timesteps: Sequence[int]
    batch: int
    size: Size
    precision: MeasuredPrecision
    config: RunConfig


def named_config(command: Callable[..., None], values: Mapping[str, Any]) -> Named | None:
    """The config that ``--config``, ``--recipe`` or ``--run`` names; None where there is none of them.

    Args:
        command: the function of the command.
        values: its arguments.

    Raises:
        UsageError: there are two of them, an option beside it that the config already says, or nobody could read it.
        RunError: there is no such run.
    """
    given = {name: values[name] for name in ("config", "recipe", "run") if values[name] is not None}
    if not given:
        return None
    if len(given) > 1:
        raise UsageError(f"{' and '.join(f'--{name}' for name in given)} each name a config: give one of them.")
    parameters = inspect.signature(command).parameters
    beside = [name for name in OF_A_CONFIG if name in parameters and values[name] != parameters[name].default]
    if beside:
        raise UsageError(f"the config says it already: leave out {', '.join(f'--{name}' for name in beside)}.")
    ((kind, name),) = given.items()
    if kind == "run":
        config = RunFolder.open(name).read_config()
    else:
        with refusals_are_usage_errors():
            config = parse_config([f"--{kind}={name}"])
    batch = config.batch_size // config.accumulate
    network, size = config.model, config.data.image_size
    return Named(str(name), network, (network.timesteps,), batch, size, config.precision, config)


def config_to_plan(network: TRevSNNConfig, size: Size, precision: MeasuredPrecision) -> RunConfig:
    """The config of a training of a named network, where only these are given: with AdamW and without averaged weights."""
    name = "recordings" if network.input == "event" else "folder"
    with refusals_are_usage_errors():
        return RunConfig(model=network, data=DataConfig(name=name, image_size=size), precision=precision)


def one_to_plan(config: RunConfig, modes: Sequence[Backprop], timesteps: Sequence[int]) -> RunConfig:
    """The config with the one backward pass and T that ``--fits`` is asked of.

    Raises:
        UsageError: several are.
    """
    if len(timesteps) > 1 or (len(modes) > 1 and tuple(modes) != BACKPROP_MODES):
        raise UsageError("--fits is asked of one training: give one of --modes and one of --timesteps.")
    backprop = modes[0] if len(modes) == 1 else config.model.backprop
    with refusals_are_usage_errors():
        return replace(config, model=replace(config.model, backprop=backprop, timesteps=timesteps[0]))


def print_plan(name: str, config: RunConfig, fits: str, device: str, processes: int, json: bool) -> None:
    """Find the largest batch that fits into ``fits``, and print it with the parts of the memory."""
    from trevsnn.measure.plan import CUDA_FIXED, CUDA_SHARE, bytes_of, plan_batch

    nbytes = bytes_of(fits)
    bar = Terminal(stderr=True)
    with bar.status("") as status:

        def tell(batch: int) -> None:
            status.update(f"counting a step of {batch} items, which takes a while; the next time it is known")

        plan = plan_batch(config, nbytes, device=device, processes=processes, tell=tell)  # type: ignore[arg-type]
    if json:
        print(dumps({"name": name, "bytes": nbytes, "device": device, "processes": processes, **vars(plan)}))
        return
    table = Table("part", title=f"{name}, {plan.batch} items at a time, {config.precision}, {device}")
    table.add_column("MB", justify="right")
    for part, amount in plan.parts.items():
        table.add_row(part, f"{amount / 1e6:.1f}")
    table.add_section()
    table.add_row("sum", f"{plan.total / 1e6:.1f}")
    console = Terminal()
    console.print(table)
    each = "" if processes == 1 else f" per process, of {processes}"
    parts = "" if config.accumulate == 1 else f", in {config.accumulate} parts"
    console.print(
        f"The largest batch that fits into {fits}: {plan.batch}{each}; --batch_size {plan.batch_size}{parts}."
    )
    if plan.too_large is None:
        console.print(
            f"A prediction: steps were counted up to {plan.counted[-1]} items, and the line through the last two goes on.",
            soft_wrap=True,
        )
    else:
        console.print(f"{plan.too_large} were counted too, and do not fit.")
    if device == "cuda":
        console.print(
            f"Workspace is an allowance: {CUDA_SHARE:.0%} of a step's tensors, about what an H100 and an H200 showed, and "
            f"{CUDA_FIXED / 2**30:g} GiB for CUDA, an assumption.", soft_wrap=True,
        )  # fmt: skip
    else:
        console.print("A CPU library's own workspace, and the loading of data, are outside the sum.")
