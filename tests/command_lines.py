"""Hand command lines to a program of benchmarks/ or examples/, which ends as soon as it has read them: command_lines.py PROGRAM LINE..."""

import argparse
import os
import re
import runpy
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trevsnn.run import config


class Understood(BaseException):
    """The program has read its options and gets no further; what it catches of exceptions does not hold it."""


def ending(read: Callable[..., Any]) -> Callable[..., None]:
    """The same function, behind which the program ends. Options that are wrong end it as they always do."""

    def read_and_end(*arguments: Any, **options: Any) -> None:
        read(*arguments, **options)
        raise Understood

    return read_and_end


def main() -> None:
    program, *lines = sys.argv[1:]
    argparse.ArgumentParser.parse_args = ending(argparse.ArgumentParser.parse_args)
    # Of what a series of trainings takes the rest is handed to the recipe.
    config.recipe_config = ending(config.recipe_config)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for line in lines:
            print(line, flush=True)
            sys.argv = [program, *shlex.split(line)]
            for data in re.findall(r"--data (\S+)", line):  # whose classes are looked up before the recipe is
                Path(data, "train").mkdir(parents=True, exist_ok=True)
            try:
                runpy.run_path(program, run_name="__main__")
            except Understood:
                continue
            sys.exit("ended without reading its options")


if __name__ == "__main__":
    main()
