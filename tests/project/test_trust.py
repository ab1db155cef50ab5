"""Files cannot run code (a check of the sources); the lock and the advisories are up to date."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator

import pytest

from tests import ROOT
from tests.project import audit, lock

FOLDERS = ("ccp_dml", "datasets", "benchmarks", "studies", "configs")
SOURCES = [ROOT / "train.py", *(file for name in FOLDERS for file in sorted((ROOT / name).rglob("*.py")))]
FORBIDDEN_MODULES = {"pickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
FORBIDDEN_FUNCTIONS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {"extractall", "extract", "load_model", "py_function"}
# The model that `--backbone=PATH` names is a program of the user; see docs/security.md.
ALLOWED = {"ccp_dml/models/backbones/user_models.py": ["load_model"]}
# Arguments that calls must have.
NEEDED = {("np", "load"): ("allow_pickle", False), ("torch", "load"): ("weights_only", True)}


def problems(source: str) -> Iterator[str]:
    """Code in a source that could run code from a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            yield from problems_of_call(node)


def problems_of_call(call: ast.Call) -> Iterator[str]:
    function = call.func
    if isinstance(function, ast.Name) and function.id in FORBIDDEN_FUNCTIONS:
        yield function.id
    if not isinstance(function, ast.Attribute):
        return
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if function.attr in FORBIDDEN_METHODS:
        yield function.attr
    if (owner, function.attr) in NEEDED:
        name, wanted = NEEDED[owner, function.attr]
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        if not (isinstance(given.get(name), ast.Constant) and given[name].value is wanted):
            yield f"{owner}.{function.attr} without {name}={wanted}"
    for keyword in call.keywords:
        if keyword.arg == "allow_pickle" and getattr(keyword.value, "value", None) is not False:
            yield "allow_pickle"
        if keyword.arg == "shell" and getattr(keyword.value, "value", None) is not False:
            yield "shell"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_runs_code_from_files(file):
    allowed = ALLOWED.get(file.relative_to(ROOT).as_posix(), [])
    assert list(problems(file.read_text(encoding="utf-8"))) == allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import yaml",
        "np.load('x')",
        "np.load('x', allow_pickle=True)",
        "np.save('x', a, allow_pickle=flag)",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "eval(text)",
        "exec(text)",
        "archive.extractall()",
        "tf.keras.models.load_model('x')",
        "tf.py_function(f, [], [])",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_code_that_runs_files_is_found(source):
    assert list(problems(source))


def test_the_lock_has_every_pin_with_a_hash():
    assert lock.main() == 0


@pytest.mark.parametrize(
    "harm, problem",
    [
        (("numpy==1.26.4", "numpy==1.26.3"), "numpy==1.26.4 is pinned, 1.26.3 is locked"),
        (("importlib-resources==", "another=="), "importlib-resources==6.4.5 is pinned, nothing is locked"),
        (("--hash=sha256:", "--hash=md5:"), "absl-py==2.1.0 has no hash"),
        (("absl-py", "--find-links /somewhere\nabsl-py"), "it holds --find-links"),
    ],
)
def test_a_lock_that_does_not_match_is_noticed(harm, problem):
    text, *sources = ((ROOT / name).read_text(encoding="utf-8") for name in (lock.LOCK, *lock.SOURCES))
    assert problem in lock.disagreements(text.replace(*harm), *sources)


def answer(**advisories: list[str]) -> str:
    """The output of pip-audit for packages with these advisories."""
    packages = [
        {"name": name, "version": "1", "vulns": [{"id": each, "aliases": []} for each in found]}
        for name, found in advisories.items()
    ]
    return json.dumps({"dependencies": packages, "fixes": []})


def test_advisories_are_compared_with_the_document():
    assert audit.unassessed(answer(numpy=[], pillow=["CVE-2026-25990"])) == []
    assert audit.unassessed(answer(pillow=["CVE-2026-25990", "CVE-1999-0001"])) == ["pillow 1: CVE-1999-0001"]
    aliased = {"id": "PYSEC-1", "aliases": ["CVE-2026-25990"]}
    packages = [{"name": "pillow", "version": "1", "vulns": [aliased]}]
    assert audit.unassessed(json.dumps({"dependencies": packages})) == []


@pytest.mark.parametrize(
    "program, code, line",
    [
        (None, 0, "advisories: NOT looked up, nothing is known of new ones: pip-audit is not installed"),
        (
            "echo 'ERROR: a' >&2; echo 'ERROR: no route to host' >&2; exit 1",
            0,
            "advisories: NOT looked up, nothing is known of new ones: "
            "pip-audit got no answer from its database; it says: ERROR: no route to host",
        ),
        (
            f"echo '{answer(pillow=['CVE-1999-0001'])}'; exit 1",
            1,
            "pillow 1: CVE-1999-0001: expected to be assessed in docs/security.md",
        ),
    ],
    ids=["not installed", "offline", "a new one"],
)
def test_the_report_on_advisories(tmp_path, monkeypatch, capsys, program, code, line):
    if program is not None:
        (tmp_path / "pip-audit").write_text(f"#!/bin/sh\n{program}\n", encoding="utf-8")
        (tmp_path / "pip-audit").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert audit.main() == code
    assert capsys.readouterr().out == f"{line}\n"


def test_without_a_look_up_there_is_no_result():
    skipped = {"name": "numpy", "skip_reason": "not found"}
    assert audit.unassessed(json.dumps({"dependencies": [skipped]})) is None
    assert audit.unassessed("") is None
