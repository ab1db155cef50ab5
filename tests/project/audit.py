"""Looks for advisories on the pinned packages that docs/security.md does not assess.

    python -m tests.project.audit

Needs pip-audit on the path, and its database on the network. If one of them is missing, it prints the reason
and returns 0, so that `make lint` works without a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from tests import ROOT

_DOCUMENT = ROOT / "docs" / "security.md"
_TIMEOUT = 120


def unassessed(answer: str) -> list[str] | None:
    """Advisories in the output of pip-audit that the document does not name; None if it has no result."""
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
    """Prints the advisories that are not assessed; returns 1 if there are any."""
    program = shutil.which("pip-audit")
    if program is None:
        return _not_looked_up("pip-audit is not installed")
    lock = str(ROOT / "requirements.lock")
    command = [program, "--disable-pip", "--require-hashes", "--format=json", "--progress-spinner=off"]
    try:
        done = subprocess.run(
            [*command, "--requirement", lock], capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        return _not_looked_up(f"pip-audit had no answer from its database within {_TIMEOUT} s")
    found = unassessed(done.stdout)
    if found is None:
        said = done.stderr.strip().rsplit("\n", 1)[-1] or "nothing"
        return _not_looked_up(f"pip-audit got no answer from its database; it says: {said}")
    for advisory in found:
        print(f"{advisory}: expected to be assessed in docs/security.md")
    return 1 if found else 0


def _not_looked_up(reason: str) -> int:
    print(f"advisories: NOT looked up, nothing is known of new ones: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
