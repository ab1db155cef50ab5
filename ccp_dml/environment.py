"""The environment of a run: versions of packages and of this code, and messages of TensorFlow."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "pillow", "array_record", "tensorflow", "tensorflow-addons", "tensorflow-datasets")
# Limits of containers, by the first and the second version of control groups.
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_IMPORTED = ("absl", "numpy", "PIL", "tensorflow", "tensorflow_datasets", "sklearn")
_PROJECT = Path(__file__).resolve().parents[1]


def quiet() -> None:
    """Hides TensorFlow's log messages, unless TF_CPP_MIN_LOG_LEVEL is set; errors still raise exceptions.

    Has to be called before TensorFlow is imported.
    """
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        for logger in ("tensorflow", "absl"):
            logging.getLogger(logger).setLevel(logging.ERROR)


def check_packages() -> None:
    """Ends the program with one line if packages of the library are not installed."""
    missing = [name for name in _IMPORTED if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(
            f"error: {sys.executable} lacks the packages {', '.join(missing)}; install them with "
            f"`{Path(sys.executable).name} -m pip install -r requirements.txt`, or use `make train`"
        )


def versions() -> dict[str, str]:
    """Returns the versions of Python, the platform and the installed packages, by name."""
    import importlib.metadata  # Takes a tenth of the time of `--help`, which does not need it.

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> dict[str, Any]:
    """Returns `git_revision` and `git_modified` (True if files were changed); None without a git checkout."""
    if _git("rev-parse", "--show-toplevel") != str(_PROJECT):
        return {"git_revision": None, "git_modified": None}
    return {
        "git_revision": _git("rev-parse", "HEAD"),
        "git_modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def memory_bytes() -> int:
    """Returns the memory of the machine, or of the container in which the process runs, in bytes."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in _MEMORY_LIMITS:
        with contextlib.suppress(OSError, ValueError):  # Without a limit, it is missing or holds a word.
            found.append(int(Path(file).read_text(encoding="ascii")))
    return min(found)


def _git(*arguments: str) -> str | None:
    """Returns the output of a git command; None if it fails or git is missing."""
    command = ("git", "-C", str(_PROJECT), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
