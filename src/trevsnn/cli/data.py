"""``trevsnn data``: prepare and check data sets."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt
from rich.console import Console

from trevsnn.errors import RunError


def add_data_commands(parser: ArgumentParser) -> None:
    """Add ``prepare imagenet`` and ``check`` to the parser of ``data``."""
    commands = parser.add_subcommands(required=True, dest="task")
    prepare = ArgumentParser(exit_on_error=False, allow_abbrev=False, description="Extract ImageNet's archives.")
    prepare.add_argument("set", choices=["imagenet"], help="Which data set.")
    prepare.add_argument("--archives", type=Path, required=True, help="Folder with the official archives.")
    prepare.add_argument("--out", type=Path, required=True, help="Folder to fill with train/WNID and val/WNID.")
    prepare.add_argument("--no_hashes", action="store_true", help="Take archives that are not the official ones.")
    commands.add_subcommand("prepare", prepare, help="extract ImageNet's archives")
    check = ArgumentParser(exit_on_error=False, allow_abbrev=False, description="Read every file of a data set.")
    check.add_argument("root", type=Path, help="Folder with train, val or test, or with the class folders.")
    check.add_argument("--workers", type=NonNegativeInt, default=2, help="Reading processes.")
    check.add_argument("--json", action="store_true", help="Print JSON.")
    commands.add_subcommand("check", check, help="read every file and name those that are unreadable or odd")


def run_data(options: Namespace) -> None:
    """Run the chosen task. Raises RunError, of check where a file is unreadable."""
    from trevsnn.data.check import check_folder, print_check
    from trevsnn.data.pictures.imagenet import prepare

    console, values = Console(), options[options.task]
    if options.task == "prepare":
        counts = prepare(values.archives, values.out, console, check_hashes=not values.no_hashes)
        console.print(f"done: {values.out}  {counts['train']} train and {counts['val']} val pictures", soft_wrap=True)
        return
    result = check_folder(values.root, values.workers)
    if values.json:
        print(json.dumps(result))
    else:
        print_check(result, console)
    if result["unreadable"]:
        raise RunError(
            f"{len(result['unreadable'])} files below {values.root} cannot be read: replace them, or train with "
            "--data.on_unreadable skip."
        )
