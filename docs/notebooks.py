"""Writes notebooks/, the tutorials with their outputs: `make notebooks`.

A notebook is made of the page of the same name: `python` blocks become cells, `console` blocks cells of shell
commands, all else text. The cells run in a folder with links to the files of the checkout.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
TUTORIALS = ("own-images", "keras", "losses", "reproduce", "deploy")
_LINKED = ("train.py", "ccp_dml", "datasets", "configs")
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```$\n?", re.DOTALL | re.MULTILINE)
_MOST_LINES = 30


class Cell(NamedTuple):
    """A part of a page: `markdown`, `python` or `console`, and its text."""

    kind: str
    text: str


def cells(tutorial: str) -> list[Cell]:
    """Splits the page of a tutorial into cells."""
    page = (ROOT / "docs" / f"tutorial-{tutorial}.md").read_text(encoding="utf-8")
    found: list[Cell] = []
    end = 0
    for block in _BLOCK.finditer(page):
        found += [Cell("markdown", page[end : block.start()].strip()), Cell(block[1], block[2].strip())]
        end = block.end()
    found.append(Cell("markdown", page[end:].strip()))
    return [cell for cell in found if cell.text]


def source(cell: Cell) -> str:
    """The text of a cell in a notebook."""
    return f"%%bash\n{cell.text}" if cell.kind == "console" else cell.text


def link_checkout(folder: Path) -> None:
    """Links what the commands of the tutorials use into a folder."""
    for name in _LINKED:
        (folder / name).symlink_to(ROOT / name)


def write(tutorial: str) -> None:
    """Runs the cells of a tutorial, and writes the notebook with what they print."""
    import nbclient
    import nbformat

    notebook = nbformat.v4.new_notebook()
    for number, cell in enumerate(cells(tutorial)):
        new = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        notebook.cells.append(new(source(cell), id=f"cell-{number}"))
    with tempfile.TemporaryDirectory() as folder:
        link_checkout(Path(folder))
        nbclient.NotebookClient(
            notebook, timeout=3600, kernel_name="python3", resources={"metadata": {"path": folder}}
        ).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        for output in cell.get("outputs", ()):
            output.pop("execution_count", None)
            output["text"] = _shortened(output.get("text", ""))
        if "outputs" in cell:
            printed = "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)] if printed else []
    file = ROOT / "notebooks" / f"{tutorial}.ipynb"
    file.parent.mkdir(exist_ok=True)
    nbformat.write(notebook, file)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def _shortened(text: str) -> str:
    """Leaves out the middle of a long output."""
    lines = text.splitlines(keepends=True)
    if len(lines) <= _MOST_LINES:
        return text
    half = _MOST_LINES // 2
    return "".join([*lines[:half], "…\n", *lines[-half:]])


if __name__ == "__main__":
    os.environ |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for name in sys.argv[1:] or TUTORIALS:
        write(name)
