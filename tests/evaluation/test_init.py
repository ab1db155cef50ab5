"""The public names of the package, loaded at their first use."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_the_package_and_the_reports_do_not_import_tensorflow():
    code = "import sys, ccp_dml.evaluation as e; e.format_table; " "sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_exists():
    import ccp_dml.evaluation as evaluation

    assert all(callable(getattr(evaluation, name)) for name in evaluation.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = evaluation.nothing
