"""Runs a program of the project that is killed, interrupted or fails at a named place.

    python -m tests.reliability.launcher step:3 train.py --flagfile=configs/emoji.cfg
    python -m tests.reliability.launcher export:1:ENOSPC -m ccp_dml.export --run_dir=... --output=...

The first argument is PLACE:COUNT[:EFFECT]. When the program passes PLACE for the COUNT-th time, EFFECT
happens: a signal is sent to the process (SIGKILL by default), or the `OSError` with this name is raised, such
as ENOSPC. The program itself knows nothing of places: the launcher wraps functions that it calls there.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib
import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from ccp_dml import environment

NOT_PASSED = 3


@dataclass(frozen=True)
class Place:
    """A call of a function, before or after which something can happen.

    Attributes:
        function: `'module:name'` or `'module:Class.method'`.
        after: right after the call instead of right before it.
        selects: true for the arguments of the calls that count.
    """

    function: str
    after: bool = False
    selects: Callable[..., bool] = lambda *arguments, **keywords: True


def _named(name: str) -> Place:
    """The moment before a file that is already on the disk gets its name."""
    return Place("os:replace", selects=lambda source, target: Path(target).name == name)


# Roughly in the order in which a run passes them.
PLACES = {
    ".ccp_dml_run": _named(".ccp_dml_run"),
    "environment.json": _named("environment.json"),
    "config.cfg": _named("config.cfg"),
    "tracing": Place("ccp_dml.training.chunks:ChunkRunner.__init__"),
    "reset": Place("ccp_dml.projections.pool:ProxyPool.__call__", after=True),
    "step": Place("ccp_dml.training.chunks:ChunkRunner.__call__", after=True),
    "validation": Place("tensorflow:keras.callbacks.CallbackList.on_test_begin", after=True),
    "metrics.csv": _named("metrics.csv"),
    "checkpoint_write": Place(
        "tensorflow:train.Checkpoint.write", selects=lambda checkpoint, path: Path(path).name == "state"
    ),
    "checkpoint_rename": Place(
        "os:rename", selects=lambda source, target: Path(source).name.startswith(".writing-")
    ),
    "checkpoint_remove": Place(
        "os:rename", after=True, selects=lambda source, target: Path(target).name.startswith(".removing-")
    ),
    "weights": Place(
        "tensorflow:train.Checkpoint.write", selects=lambda checkpoint, path: Path(path).name == "best"
    ),
    "export": Place("ccp_dml.files:to_disk", after=True, selects=lambda folder: folder.name == "new"),
    "export_replace": Place("os:rename", selects=lambda source, target: Path(source).name == "new"),
    "results.json": _named("results.json"),
}


@contextlib.contextmanager
def watch(places: Iterable[str], passed: Callable[[str], None]) -> Iterator[None]:
    """Context in which `passed` is called with the name of a place whenever the process passes it.

    Raises:
        AttributeError: if a function that marks a place does not exist any more.
    """
    with contextlib.ExitStack() as stack:
        for name in places:
            owner, attribute = _find(name)
            watched = _watched(getattr(owner, attribute), PLACES[name], functools.partial(passed, name))
            stack.enter_context(mock.patch.object(owner, attribute, watched))
        yield


class Fault:
    """An effect at a place; as a context, it lasts for the block and happens once at most."""

    def __init__(self, setting: str) -> None:
        """Takes PLACE:COUNT[:EFFECT].

        Raises:
            ValueError: if the place, the count or the effect does not exist.
        """
        self._place, _, rest = setting.partition(":")
        count, _, effect = rest.partition(":")
        self._effect = effect or "SIGKILL"
        if self._place not in PLACES or not count.isdecimal() or int(count) < 1:
            raise ValueError(f"{setting}: expected PLACE:COUNT[:EFFECT], PLACE one of {', '.join(PLACES)}")
        if self._effect not in signal.Signals.__members__ and not hasattr(errno, self._effect):
            raise ValueError(f"{setting}: expected the name of a signal or of an error, such as ENOSPC")
        self._remaining = int(count)

    @property
    def happened(self) -> bool:
        """True once the place was passed often enough."""
        return self._remaining <= 0

    def __enter__(self) -> Fault:
        self._watching = watch([self._place], self._pass)
        self._watching.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._watching.__exit__(*error)

    def _pass(self, place: str) -> None:
        self._remaining -= 1
        if self._remaining != 0:
            return
        if self._effect in signal.Signals.__members__:
            os.kill(os.getpid(), signal.Signals[self._effect])
            return
        number = getattr(errno, self._effect)
        raise OSError(number, os.strerror(number), place)


def _find(name: str) -> tuple[Any, str]:
    """The object that has the function of a place as an attribute, and the attribute's name."""
    module, _, path = PLACES[name].function.partition(":")
    *outer, attribute = path.split(".")
    try:
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        getattr(owner, attribute)
    except (ImportError, AttributeError) as error:
        message = f"place {name}: {module}:{path} does not exist; update PLACES in {__file__}"
        raise AttributeError(message) from error
    return owner, attribute


def _watched(function: Callable[..., Any], place: Place, passed: Callable[[], None]) -> Callable[..., Any]:
    """The function, with `passed` called before or after those of its calls that count."""

    @functools.wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        counts = place.selects(*arguments, **keywords)
        if counts and not place.after:
            passed()
        result = function(*arguments, **keywords)
        if counts and place.after:
            passed()
        return result

    return call


def main(arguments: Sequence[str]) -> int:
    """Runs a program with a fault; returns `NOT_PASSED` if it ends without having passed the place."""
    setting, program, *rest = arguments
    environment.quiet()
    code: Any = 0
    with Fault(setting) as fault:
        try:
            if program == "-m":
                sys.argv = rest
                runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
            else:
                sys.argv = [program, *rest]
                runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            code = end.code
    if not fault.happened:
        print(f"{setting}: the program has ended without passing it, with code {code}", file=sys.stderr)
        return NOT_PASSED
    return int(code or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
