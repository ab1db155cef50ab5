"""Rules for the modules of the library: no cycles, plain docstrings, no fragments, few arguments."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Iterator
from pathlib import Path

import grimp
import pytest

from tests import ROOT

FILES = sorted((ROOT / "ccp_dml").rglob("*.py"))
# Docstrings open with a verb or a noun phrase, as the entries of an index do.
CLAUSE = re.compile(r"(What|Which|How|Where|When|Whether)\b")
FEW_LINES = 60
MOST_ARGUMENTS = 8


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    """Modules of the library and their imports, those under TYPE_CHECKING included."""
    return grimp.build_graph("ccp_dml", exclude_type_checking_imports=False, cache_dir=None)


def name_of(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def definitions(file: Path) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef]]:
    """The module, its classes and functions, each with its place."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    yield name_of(file), tree
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield f"{file.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_modules_import_each_other_in_a_cycle(imports):
    direct = {name: imports.find_modules_directly_imported_by(name) for name in imports.modules}
    try:
        graphlib.TopologicalSorter(direct).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def test_only_the_catalog_knows_the_data_sets():
    users = [file.name for file in FILES if "ccp_dml.datasets." in file.read_text(encoding="utf-8")]
    assert users == ["catalog.py"]


def test_no_docstring_opens_with_a_clause():
    offenders = [
        f"{name}: {text.splitlines()[0]}"
        for file in FILES
        for name, node in definitions(file)
        if (text := ast.get_docstring(node)) and CLAUSE.match(text)
    ]
    assert offenders == []


def test_no_short_module_serves_only_one_other(imports):
    """Exceptions: what a registry loads by name, and options, which are kept apart from TensorFlow."""
    texts = {file: file.read_text(encoding="utf-8") for file in FILES}
    offenders = []
    for file, text in texts.items():
        name, lines = name_of(file), len(text.splitlines())
        if file.name in ("__init__.py", "options.py") or lines >= FEW_LINES:
            continue
        importers = imports.find_modules_that_directly_import(name)
        loaded_by_name = any(f'"{name}:' in other for other in texts.values())
        if len(importers) == 1 and not loaded_by_name:
            offenders.append(f"{name}: {lines} lines, imported by {importers.pop()} only")
    assert offenders == []


def test_no_constructor_has_many_arguments():
    offenders = []
    for file in FILES:
        for name, node in definitions(file):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__":
                arguments = node.args
                count = len([*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]) - 1
                if count > MOST_ARGUMENTS:
                    offenders.append(f"{name}: {count} arguments")
    assert offenders == []
