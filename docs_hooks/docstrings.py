"""Docstrings of src/ as Markdown, for mkdocstrings: an extension of griffe.

What they have that Markdown has not: ``double backticks``, which it shows as code anyway; roles such as :class:`Spike`, which become
code that links to where the reference documents the name, if it does; tables between lines of =; two colons before an
indented block; and brackets that mean an index. What stands above a constant after
#: is its docstring. Arguments or attributes that are described together, "a, b: ...", are described each. Fields of a
dataclass or named tuple are told with their defaults; a named tuple gets a signature of them. Errors that a docstring says are
raised are linked in modules that do not import them, too.
"""

from __future__ import annotations

import ast
import re
import textwrap
from contextlib import suppress
from typing import Any

import griffe

from trevsnn import errors

ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`~?([^`]+)`")
LITERAL = re.compile(
    r"^(?P<indent> *)(?P<text>.*)::\n\n(?P<block>(?:(?P=indent) +.*\n|\n)*(?P=indent) +.*)", re.MULTILINE
)
CODE = re.compile(r"```.*?```|``.*?``|`[^`]*`", re.DOTALL)
TABLE = re.compile(r"^(=+(?: +=+)+)\n((?:.+\n)+?)\1(?=\n\n|\n*\Z)", re.MULTILINE)
ENTRY = re.compile(r"^    (\w+)(: .*(?:\n {8,}.*)*)", re.MULTILINE)
TOGETHER = re.compile(r"^    (\w+(?:, \w+)+)(: .*(?:\n {8,}.*)*)", re.MULTILINE)


#: Errors that docstrings name in modules that do not import them, and where the reference has them.
ERRORS = {name: f"trevsnn.errors.{name}" for name in errors.__all__} | {
    name: f"trevsnn.reversible.{name}" for name in ("ReplayError", "ReversibilityError")
}


class MarkdownDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is None and obj.is_attribute and (comment := _comment(obj)):
            obj.docstring = griffe.Docstring(comment, lineno=obj.lineno, parent=obj)
        if obj.is_class and _is_named_tuple(obj):
            obj.set_member("__init__", _constructor(obj))
        if obj.docstring is not None:
            obj.docstring.value = to_markdown(obj.docstring.value, obj)
            for name, path in ERRORS.items():
                if f"    {name}: " in obj.docstring.value and name not in obj.module.members:
                    obj.module.set_member(name, griffe.Alias(name, path, parent=obj.module))

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        _shorten_imports(pkg)


def _shorten_imports(module: griffe.Module) -> None:
    """What a module imports from one that imports it too stands for the object itself, so that its links are found."""
    for name, member in list(module.members.items()):
        if member.is_alias and member.target_path.startswith("trevsnn."):
            with suppress(griffe.AliasResolutionError, griffe.CyclicAliasError):
                if (path := member.final_target.path) != member.target_path:
                    module.set_member(name, griffe.Alias(name, path, parent=module))
        elif not member.is_alias and member.is_module:
            _shorten_imports(member)


def _comment(obj: griffe.Object) -> str:
    """What the lines above a constant say that begin with ``#:``."""
    said: list[str] = []
    line = (obj.lineno or 1) - 1  # lines are counted from 1
    lines = obj.lines_collection[obj.filepath]
    while line and (text := lines[line - 1].strip()).startswith("#:"):
        said.insert(0, text.removeprefix("#:").strip())
        line -= 1
    return "\n".join(said)


def to_markdown(text: str, obj: griffe.Object) -> str:
    """A docstring of this object as Markdown."""
    text = TABLE.sub(lambda table: _table(table[1], table[2]), text)
    text = TOGETHER.sub(lambda entry: "\n".join(f"    {name}{entry[2]}" for name in entry[1].split(", ")), text)
    if obj.is_class and (
        _is_named_tuple(obj) or any(str(name.value).startswith("dataclass") for name in obj.decorators)
    ):
        text = ENTRY.sub(lambda entry: entry[0] + _default(obj.members.get(entry[1])), text)
    text = LITERAL.sub(_literal, text)
    text = ROLE.sub(lambda role: _link(role[1], obj), text)
    words, code = CODE.split(text), CODE.findall(text)
    words = [word.replace("](", "]\\(") for word in words]  # F[l,t](x) is an equation, and no link
    return "".join(word + block for word, block in zip(words, [*code, ""], strict=True))


def _is_named_tuple(obj: griffe.Class) -> bool:
    return any(str(base) == "NamedTuple" for base in obj.bases)


def _constructor(obj: griffe.Class) -> griffe.Function:
    """What makes a named tuple: a function of its fields."""
    kind = griffe.ParameterKind.positional_or_keyword
    fields = [field for field in obj.members.values() if field.is_attribute and field.annotation is not None]
    given = [griffe.Parameter(f.name, annotation=f.annotation, kind=kind, default=f.value) for f in fields]
    return griffe.Function("__init__", parameters=griffe.Parameters(griffe.Parameter("self", kind=kind), *given))


def _default(field: griffe.Object | None) -> str:
    """A sentence on what a field of a dataclass is where nothing is given."""
    value = str(getattr(field, "value", None) or "field")
    return "" if value.startswith("field") else f" Default: ``{value}``."


def _literal(found: re.Match[str]) -> str:
    """The block as a fenced one, as deep as the text above it."""
    block = textwrap.dedent(found["block"]).splitlines()
    language = "python" if _is_python("\n".join(block)) else "text"
    said = [f"{found['text']}:", ""] if found["text"] else []  # the colons may stand alone, for the block
    lines = [*said, f"```{language}", *block, "```"]
    return textwrap.indent("\n".join(lines), found["indent"])


def _is_python(block: str) -> bool:
    """Whether a block is an example: Python that calls something by its name, as no equation here does (F[l,t](...))."""
    try:
        tree = ast.parse(block)
    except SyntaxError:
        return False
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return any(isinstance(func, ast.Name | ast.Attribute) for func in calls)


def _table(line: str, rows: str) -> str:
    """A table of two columns or more; its first row may be a heading, with a line of = below it."""
    columns = [match.span() for match in re.finditer("=+", line)]
    columns[-1] = (columns[-1][0], 10_000)
    cells = [
        "| " + " | ".join(row[begin:end].strip() for begin, end in columns) + " |"
        for row in rows.splitlines()
        if row != line
    ]
    heading = cells.pop(0) if line in rows else "|" + " |" * len(columns)
    return "\n".join([heading, "|" + "---|" * len(columns), *cells])


def _link(name: str, obj: griffe.Object) -> str:
    """Code that links to the name's place in the reference, where it has one."""
    shown = name.removeprefix(".")
    return f'<autoref optional identifier="{_path(shown, obj)}"><code>{shown}</code></autoref>'


def _path(name: str, obj: griffe.Object) -> str:
    """The whole name of what an object's docstring names: as it is, of the object itself, or of its module."""
    if name.startswith("trevsnn."):
        return name
    if obj.is_class and name in obj.all_members:
        return f"{obj.path}.{name}"
    try:
        return obj.resolve(name)
    except griffe.NameResolutionError:
        return name
