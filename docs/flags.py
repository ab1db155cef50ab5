"""Writes docs/flags.md, the reference of all flags, from the options themselves: `python docs/flags.py`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ccp_dml.config import ExperimentConfig
from ccp_dml.kinds import LARGEST_INTEGER, LARGEST_NUMBER
from ccp_dml.losses.registry import LOSSES, WRAPPERS
from ccp_dml.options import Change, Option, options_of

PAGE = Path(__file__).with_name("flags.md")
_INTRODUCTION = """\
# Flags

Every flag of `python train.py`, by group. `--name=value` sets a flag, `--name` and `--noname` switch one on
and off, and `--flagfile=FILE` reads flags from a file, one per line; of several values of a flag the last one
counts. `--print_config` shows what a command would do and where each value comes from.

An unfinished run may continue with another value where the last column says so: **yes** if the result is the
same but for rounding, *larger* if a larger value only makes the run longer. Any other change is refused.

This page is made from the options by `python docs/flags.py`.
"""


def page() -> str:
    """The page in Markdown."""
    blocks = [_INTRODUCTION]
    for name, section in ExperimentConfig().groups():
        lines = [f"## {str(type(section).__doc__).rstrip('.')}", ""]
        if name == "loss":
            lines += ["| flag | values | meaning | taken by |", "|---|---|---|---|"]
            lines += [_loss_row(declared) for declared in options_of(section)]
        else:
            lines += ["| flag | default | values | meaning | may change |", "|---|---|---|---|---|"]
            lines += [_row(declared) for declared in options_of(section)]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _row(declared: Option) -> str:
    default = "" if declared.optional else f"`{declared.format(declared.default)}`"
    kept = {Change.FREE: "**yes**", Change.LARGER: "*larger*", Change.NEVER: ""}[declared.change]
    cells = (f"`--{declared.name}`", default.replace("``", ""), declared.kind.expected, declared.help, kept)
    return f"| {' | '.join(map(_cell, cells))} |"


def _loss_row(declared: Option) -> str:
    specs = {**WRAPPERS, **LOSSES}
    taking = [name for name, spec in specs.items() if declared.name in {p.name for p in spec.parameters}]
    shared = all(name in taking for name in LOSSES)
    wrappers = [f"`{name}`" for name in taking if name in WRAPPERS]
    losses = ["all losses"] if shared else [f"`{name}`" for name in taking if name in LOSSES]
    cells = (f"`--{declared.name}`", declared.kind.expected, declared.help, ", ".join(wrappers + losses))
    return f"| {' | '.join(map(_cell, cells))} |"


def _cell(text: str) -> str:
    """A cell without the limits of int32 and float32, which no reader needs."""
    for limit in (
        f" and at most {LARGEST_INTEGER}",
        f", at least {-LARGEST_NUMBER} and at most {LARGEST_NUMBER}",
    ):
        text = text.replace(limit, "")
    return text.replace(f" and at most {LARGEST_NUMBER}", "").replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
