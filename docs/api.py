"""Writes docs/api.md, the reference of the public names, from their docstrings: `python docs/api.py`."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import ccp_dml
from ccp_dml.options import Options

PAGE = Path(__file__).with_name("api.md")
_INTRODUCTION = """\
# Python API

The public names by package. `import ccp_dml` reaches all of them, such as `ccp_dml.losses.CCP`, and loads
each, with TensorFlow, at its first use. In the examples, `np` is NumPy, `tf` TensorFlow, `photos` a folder of
images by class and `folder` an empty folder. [The tutorial](tutorial-keras.md) shows the names together.

This page is made from the docstrings by `python docs/api.py`; a test runs the examples.
"""
# Keras calls these itself.
_OF_KERAS = {
    "build",
    "build_from_config",
    "call",
    "compute_output_shape",
    "from_config",
    "get_build_config",
    "get_config",
    "load_own_variables",
    "save_own_variables",
}
_HEADINGS = ("Args", "Attributes", "Raises", "Returns", "Example")


def page() -> str:
    """The page in Markdown."""
    names = [name for name in ccp_dml.__all__ if inspect.ismodule(getattr(ccp_dml, name))]
    described: set[int] = set()
    blocks = [_INTRODUCTION]
    for package in (getattr(ccp_dml, name) for name in names):
        blocks.append(f"## {package.__name__}\n\n{inspect.getdoc(package).splitlines()[0]}\n")
        blocks += [_entry(package, name) for name in package.__all__ if not _seen(package, name, described)]
    top = [name for name in ccp_dml.__all__ if name not in names]
    blocks.insert(1, "Also at the top, as `ccp_dml.…`: " + ", ".join(f"`{name}`" for name in top) + ".\n")
    return "\n".join(blocks)


def _seen(package: ModuleType, name: str, described: set[int]) -> bool:
    key = id(getattr(package, name))
    is_known = key in described
    described.add(key)
    return is_known


def _entry(package: ModuleType, name: str) -> str:
    thing = getattr(package, name)
    lines = [f"### `{name}{_signature(thing)}`", ""]
    if isinstance(thing, type) and issubclass(thing, Options):
        lines += [f"{inspect.getdoc(thing)} [The flags](flags.md) have its fields, defaults and ranges.", ""]
        return "\n".join(lines)
    lines += [_markdown(inspect.getdoc(thing) or ""), ""]
    if isinstance(thing, type):
        for method, of in _methods(thing):
            lines += [f"**`{method}{_signature(of)}`** {_markdown(inspect.getdoc(of) or '')}", ""]
    return "\n".join(lines)


def _methods(kind: type) -> list[tuple[str, Any]]:
    """The constructor, and the public methods that the class itself defines."""
    found = [(name, getattr(kind, name)) for name in vars(kind) if not name.startswith("_")]
    methods = [
        (name, of)
        for name, of in found
        if inspect.isroutine(of) and of.__module__.startswith("ccp_dml") and name not in _OF_KERAS
    ]
    constructor = [("__init__", kind.__init__)] if inspect.isfunction(vars(kind).get("__init__")) else []
    return [(name, of) for name, of in constructor + methods if inspect.getdoc(of)]


def _signature(thing: Any) -> str:
    """The names of the arguments and their defaults, without types."""
    parameters = inspect.signature(thing).parameters.values()
    plain = [item.replace(annotation=inspect.Parameter.empty) for item in parameters if item.name != "self"]
    return re.sub(r"<[^>]*>", "…", str(inspect.Signature(plain)))


def _markdown(text: str) -> str:
    """A docstring with its headings in bold, arguments as a list, and examples as code."""
    lines: list[str] = []
    section = ""
    for line in text.splitlines():
        heading = line.strip().rstrip(":")
        if line == f"{heading}:" and heading in _HEADINGS:
            lines += ["```", ""] if section == "Example" else []
            section = heading
            lines += [f"**{heading}**", ""] if heading != "Example" else ["```python"]
        elif section == "Example":
            lines += [line[4:]] if line.strip() else []
        elif section and re.match(r"    [*\w]", line) and section != "Returns":
            name, _, rest = line.strip().partition(": ")
            lines.append(f"- `{name}`: {rest}")
        elif section and line.startswith("    "):
            lines.append(f"  {line.strip()}" if section != "Returns" else line.strip())
        else:
            lines.append(line)
    if section == "Example":
        lines.append("```")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
