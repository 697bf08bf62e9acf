"""What the pages say to run of benchmarks/ and examples/ has options that the program takes; none runs further than these."""

import importlib.util
import re
from collections import defaultdict
from pathlib import Path

import pytest

from doc_pages import PAGES, ROOT, programs
from processes import run_program

#: The command lines of each program, without its name.
LINES: dict[str, list[str]] = defaultdict(list)
for _page in PAGES:
    for _name, _line in programs(_page):
        LINES[_name].append(_line)


@pytest.mark.parametrize("name", sorted(LINES))
def test_programs_take_the_options_that_the_pages_give_them(name):
    source = (ROOT / name).read_text()
    for package in re.findall(r"^(?:from|import) (spikingjelly|triton)\b", source, re.MULTILINE):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    if "parse" in source:
        assert run_program(Path(__file__).parent, "command_lines.py", str(ROOT / name), *LINES[name]) == LINES[name]
    else:
        assert set(LINES[name]) == {""}, "the program takes no options"


def test_there_are_commands_in_blocks_and_in_sentences():
    assert "--write" in LINES["benchmarks/memory.py"]
    assert "--write --against_t" in LINES["benchmarks/memory.py"]
    assert "bring FOLDER" in LINES["benchmarks/gpu.py"]
    assert any(line.endswith("--batch_size 32 --optim.warmup_epochs 1") for line in LINES["benchmarks/timesteps.py"])
    assert len(LINES) >= 18
