"""Tests of the project, in folders as those of `ccp_dml`."""

from pathlib import Path

# The folder of the project.
ROOT = Path(__file__).parents[1]
