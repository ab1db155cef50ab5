"""Compares requirements.lock with the requirements that it was made from; needs no network.

python -m tests.project.lock
"""

from __future__ import annotations

import re
import sys

from tests import ROOT

LOCK = "requirements.lock"
SOURCES = ("requirements.txt", "requirements-dev.txt")
_PIN = re.compile(r"^([A-Za-z0-9_.-]+)==([^\s\\;]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}\b")
# Places of packages, which belong to the machine that made the lock.
_PLACES = ("://", "--index-url", "--extra-index-url", "--find-links", "--trusted-host")


def pins(text: str) -> dict[str, str]:
    """Versions by normalised package name that a file of requirements pins."""
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in _PIN.findall(text)}


def disagreements(lock: str, *sources: str) -> list[str]:
    """Problems of a lock, given its text and those of the files that it was made from."""
    locked = pins(lock)
    wanted = {name: version for source in sources for name, version in pins(source).items()}
    found = [
        f"{name}=={version} is pinned, {locked.get(name, 'nothing')} is locked"
        for name, version in wanted.items()
        if locked.get(name) != version
    ]
    # Without the text above the first package.
    entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
    found += [f"{entry.split()[0]} has no hash" for entry in entries if not _HASH.search(entry)]
    return found + [f"it holds {place}" for place in _PLACES if place in lock]


def main() -> int:
    """Prints the problems of the lock; returns 1 if there are any."""
    lock, *sources = ((ROOT / name).read_text(encoding="utf-8") for name in (LOCK, *SOURCES))
    found = disagreements(lock, *sources)
    for problem in found:
        print(f"{LOCK}: {problem}; run `make lock`")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
