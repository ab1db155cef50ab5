"""What a run depends on beside its flags: versions of packages and of this code; imports none of them."""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = ("numpy", "pillow", "array_record", "tensorflow", "tensorflow-addons", "tensorflow-datasets")
_PROJECT = Path(__file__).resolve().parents[1]


def quiet() -> None:
    """Keeps TensorFlow's start-up chatter off the terminal; call it before TensorFlow is imported.

    Errors still surface, as Python exceptions. A user who sets TF_CPP_MIN_LOG_LEVEL gets what it asks for.
    """
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ:
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        for logger in ("tensorflow", "absl"):
            logging.getLogger(logger).setLevel(logging.ERROR)


def versions() -> dict[str, str]:
    """Installed versions by package, Python and the platform."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def revision() -> dict[str, Any]:
    """`git_revision` of this code and whether files are `git_modified`; None outside a checkout of it."""
    if _git("rev-parse", "--show-toplevel") != str(_PROJECT):
        return {"git_revision": None, "git_modified": None}
    return {
        "git_revision": _git("rev-parse", "HEAD"),
        "git_modified": bool(_git("status", "--porcelain", "--untracked-files=no")),
    }


def _git(*arguments: str) -> str | None:
    """What a git command prints; None where it fails or git is missing."""
    command = ("git", "-C", str(_PROJECT), *arguments)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
