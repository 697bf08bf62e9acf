"""All mistakes of a command line that describes a run, at once: options, types, choices, ranges, contradictions, misfits.

The parser and the configs end at the first; this is asked once they have ended. Nothing here loads PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from trevsnn.data.config import DataConfig
from trevsnn.errors import RunError, UsageError
from trevsnn.network.config import TRevSNNConfig
from trevsnn.run.config import OptimConfig, RunConfig
from trevsnn.run.misfits import Facts, facts_of, idle, misfits
from trevsnn.run.options import flatten, nest, split_options
from trevsnn.run.own_pictures import base_of, is_own_pictures
from trevsnn.run.reading import Reading, read_options
from trevsnn.run.recipes import DEFAULT_RECIPE, read_recipe
from trevsnn.run.sources import brought_by
from trevsnn.run.warmup import shortened_warmup

SECTIONS = {"model": TRevSNNConfig, "data": DataConfig, "optim": OptimConfig}


def all_mistakes(arguments: Sequence[str], others: Mapping[str, bool]) -> list[str]:
    """Sentences on all that is wrong with a command line; none where the parser alone knows.

    Args:
        arguments: of ``trevsnn train``.
        others: options that are not the config's by name, and whether each takes a value.
    """
    given = split_options(arguments, [name for name, takes in others.items() if not takes])
    reading = read_options(given, others)
    sentences = list(reading.sentences)
    if not reading.begun:  # what a file would have said is not known
        return sentences
    base, facts = _base(reading, sentences)
    values = base | reading.values
    warmup = shortened_warmup(base, reading.values, {option.name for option in given})
    if warmup is not None:
        values["optim.warmup_epochs"] = warmup
    config, refused, about = refusals(values)
    sentences += refused
    if config is not None:
        wrong = reading.wrong | about
        found = [*misfits(config, facts or facts_of(config.data)), *idle(config)]
        sentences += [misfit.sentence for misfit in found if not wrong & set(misfit.options)]
    return list(dict.fromkeys(sentences))


def refusals(values: Mapping[str, Any]) -> tuple[RunConfig | None, list[str], set[str]]:
    """What the configs' own checks refuse, one after the other: what a refusal is about has its default from then on.

    Args:
        values: by dotted names, of the right types.

    Returns:
        The config that is left, if any; the sentences; the options that they are about.
    """
    left, sentences, known = dict(values), list[str](), set[str]()
    while message := _message(left):
        about = {name for name in left if _message({n: v for n, v in left.items() if n != name}) != message}
        if not about:  # it is about defaults alone
            return None, sentences or [message], known
        if not about <= known:  # or else a default contradicts what has been refused with another
            sentences.append(message)
        known |= about
        del left[min(about, key=lambda name: (_place(name, message), name))]
    return _build(left), sentences, known


def _base(reading: Reading, sentences: list[str]) -> tuple[dict[str, Any], Facts | None]:
    """What the options change, and what is known of the data by a look at them; a folder's mistake is added to the others."""
    if reading.files:
        return reading.from_files, None
    own = is_own_pictures(reading.values)
    try:
        brought = brought_by(reading.values, own_pictures=own)
    except (UsageError, RunError) as error:
        sentences.append(str(error))
        brought = {}
    if not own:
        return flatten(read_recipe(DEFAULT_RECIPE)) | brought, None
    try:
        base, facts = base_of(brought | reading.values, look=True)
    except RunError as error:
        sentences.append(str(error))
        base, facts = base_of(reading.values, look=False)
    return base | brought, facts


def _build(values: Mapping[str, Any]) -> RunConfig:
    nested = nest(values)
    sections: dict[str, Any] = {}
    for name, kind in SECTIONS.items():
        try:
            sections[name] = kind(**nested.pop(name, {}))
        except ValueError as error:  # a network's config, which is used alone as well, names its fields alone
            own = re.match(r"\w+", str(error))
            inner = name == "model" and own is not None and own[0] in {field.name for field in fields(kind)}
            raise ValueError(f"{name}.{error}" if inner else str(error)) from error
    return RunConfig(**sections, **nested)


def _message(values: Mapping[str, Any]) -> str:
    """What the checks of these values say first, nothing where they pass."""
    try:
        _build(values)
    except (ValueError, TypeError) as error:
        return str(error)
    return ""


def _place(name: str, message: str) -> int:
    place = message.find(name)
    return len(message) if place < 0 else place
