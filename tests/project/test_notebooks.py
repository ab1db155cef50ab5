"""The tutorials and their notebooks: equal, with outputs, and their commands run."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import ROOT

# Shorter trainings; the commands are the same otherwise.
SHORT = {
    "--max_epochs=10": "--max_epochs=1",
    "--max_epochs=8": "--max_epochs=1",
    "--max_epochs=2": "--max_epochs=1",
    "--steps_per_epoch=50": "--steps_per_epoch=2",
    "emoji.cfg --run_dir": "emoji.cfg --steps_per_epoch=2 --run_dir",
    "c2.cfg --run_dir": "c2.cfg --steps_per_epoch=2 --run_dir",
    "c2_ccp.cfg --run_dir": "c2_ccp.cfg --steps_per_epoch=2 --run_dir",
}
MAKER: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "notebooks.py"))


@pytest.mark.parametrize("tutorial", MAKER["TUTORIALS"])
def test_a_notebook_has_the_cells_of_its_page_and_their_outputs(tutorial: str) -> None:
    file = ROOT / "notebooks" / f"{tutorial}.ipynb"
    notebook = json.loads(file.read_text(encoding="utf-8"))
    made = MAKER["cells"](tutorial)
    assert ["".join(cell["source"]) for cell in notebook["cells"]] == [MAKER["source"](cell) for cell in made]
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert outputs
    assert {output["output_type"] for output in outputs} == {"stream"}
    assert file.stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.parametrize("tutorial", [name for name in MAKER["TUTORIALS"] if name != "keras"])
def test_the_commands_and_programs_of_a_tutorial_run(tutorial: str, tmp_path: Path) -> None:
    MAKER["link_checkout"](tmp_path)
    programs = {"console": ["bash", "-e", "-c"], "python": [sys.executable, "-c"]}
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    said = ""
    for kind, text in MAKER["cells"](tutorial):
        if kind == "markdown":
            continue
        said = f"{said}\n{text}" if kind == "python" else said
        shown = said if kind == "python" else text
        for long, short in SHORT.items():
            shown = shown.replace(long, short)
        command = [*programs[kind], shown]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout or kind == "console"
