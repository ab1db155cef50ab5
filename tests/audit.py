"""Looks for advisories of the pinned packages that docs/security.md does not assess: `python -m tests.audit`.

Needs pip-audit on the path and its database on the network; where one of them is missing, says so in a line.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_DOCUMENT = _ROOT / "docs" / "security.md"
_TIMEOUT = 120


def unassessed(answer: str) -> list[str] | None:
    """Advisories in the JSON of pip-audit that the document does not name; None if nothing was looked up."""
    try:
        packages = json.loads(answer)["dependencies"]
    except (ValueError, KeyError):
        return None
    looked_up = [package for package in packages if "skip_reason" not in package]
    if not looked_up:
        return None
    document = _DOCUMENT.read_text(encoding="utf-8")
    return [
        f"{package['name']} {package['version']}: {found['id']}"
        for package in looked_up
        for found in package["vulns"]
        if not any(name in document for name in (found["id"], *found["aliases"]))
    ]


def main() -> int:
    """Returns 1 if there are advisories that nobody has assessed."""
    program = shutil.which("pip-audit")
    if program is None:
        print("advisories: not looked up, as pip-audit is not installed")
        return 0
    lock = str(_ROOT / "requirements.lock")
    command = [program, "--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(
            [*command, "--requirement", lock], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        done = None
    found = None if done is None else unassessed(done.stdout)
    if found is None:
        print("advisories: not looked up, as pip-audit reached no database")
        return 0
    for advisory in found:
        print(f"{advisory}: expected to be assessed in docs/security.md")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
