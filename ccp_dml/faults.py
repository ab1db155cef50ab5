"""Places where a test kills or interrupts the process or lets a write fail; else they do nothing."""

from __future__ import annotations

import errno
import os
import signal

VARIABLE = "CCP_DML_FAULT"
# Every place, about in the order in which a run comes by them; a file's name: before it gets that name.
POINTS = (
    ".ccp_dml_run",
    "environment.json",
    "config.cfg",
    "tracing",
    "reset",
    "step",
    "validation",
    "metrics.csv",
    "checkpoint_write",
    "checkpoint_rename",
    "checkpoint_remove",
    "weights",
    "export",
    "export_replace",
    "results.json",
)


def passage(point: str) -> None:
    """Comes by a place; the test decides what happens there.

    `CCP_DML_FAULT=step:3` kills the process with SIGKILL when it comes by `step` for the third time;
    `checkpoint_write:1:ENOSPC` raises the `OSError` of a full disk there instead, and `export:1:SIGINT` sends
    that signal. The count is kept in the variable itself.

    Raises:
        OSError: if the variable asks for one here.
        ValueError: if the variable names no place that exists, or no number.
    """
    setting = os.environ.get(VARIABLE)
    if setting is None:
        return
    name, _, rest = setting.partition(":")
    count, _, effect = rest.partition(":")
    if name not in POINTS or not count.isdecimal():
        raise ValueError(f"{VARIABLE}={setting}: expected PLACE:COUNT[:EFFECT], PLACE one of {POINTS}")
    if name != point:
        return
    if int(count) > 1:
        os.environ[VARIABLE] = ":".join(filter(None, (name, str(int(count) - 1), effect)))
        return
    del os.environ[VARIABLE]
    effect = effect or "SIGKILL"
    if effect in signal.Signals.__members__:
        os.kill(os.getpid(), signal.Signals[effect])
        return
    number = getattr(errno, effect)
    raise OSError(number, os.strerror(number), point)
