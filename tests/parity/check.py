"""Checks this library against recorded vectors of the original code.

    python -m tests.parity.check DIR

reads every `.npz` file in DIR, runs each recorded case through the adapter of the same name in
`tests.parity.adapters`, prints a line per file and exits non-zero on any failure.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.parity.comparison import Case, Comparison, NotPorted
from tests.parity.deviations import DEVIATIONS


@dataclass
class FileReport:
    """Outcome of the cases of one file."""

    kind: str
    passed: int = 0
    error: float = 0.0
    failures: list[str] = field(default_factory=list)
    deviations: list[str] = field(default_factory=list)
    not_ported: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """`FAIL`, `pass`, or `not ported` if no case could be run."""
        if self.failures:
            return "FAIL"
        return "pass" if self.passed or self.deviations else "not ported"

    def __str__(self) -> str:
        counts = [f"{self.passed} passed"]
        counts += [f"{len(self.failures)} failed"] if self.failures else []
        counts += [f"{len(self.deviations)} deviate"] if self.deviations else []
        counts += [f"{len(self.not_ported)} not ported"] if self.not_ported else []
        return f"{self.kind:28s} {self.verdict:10s} max error {self.error:8.1e}   {', '.join(counts)}"


def cases(path: Path) -> Iterator[Case]:
    """Yields the recorded cases of a golden file."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    config = json.loads(str(arrays.pop("config")))
    for name, parameters in config["cases"].items():
        prefix = f"{name}/"
        of_case = {key.removeprefix(prefix): value for key, value in arrays.items() if key.startswith(prefix)}
        yield Case(name, parameters, of_case, arrays)


def _adapter(kind: str) -> Callable[[Case], list[Comparison]] | None:
    """Returns the function that runs the cases of a kind; None for an unknown kind."""
    module = f"tests.parity.adapters.{kind}"
    if not kind.isidentifier() or importlib.util.find_spec(module) is None:
        return None
    return getattr(importlib.import_module(module), "compare", None)


def check_file(path: Path) -> FileReport:
    """Runs every case of one golden file."""
    kind = path.stem
    report = FileReport(kind)
    compare = _adapter(kind)
    try:
        recorded = list(cases(path))
    except Exception as error:  # A damaged file can raise anything.
        report.failures.append(f"cannot be read: {_in_short(error)}")
        return report
    if not recorded:
        report.failures.append("no cases")
    for case in recorded:
        if compare is None:
            report.not_ported.append(f"{case.name}: no adapter for {kind}")
            continue
        try:
            comparisons = compare(case)
        except NotPorted as reason:
            report.not_ported.append(f"{case.name}: {reason}")
            continue
        except Exception as error:  # The other cases are still checked.
            report.failures.append(f"{case.name}: {_in_short(error)}")
            continue
        wrong = [comparison for comparison in comparisons if not comparison.passed]
        deviation = DEVIATIONS.get((kind, case.name))
        if wrong and deviation is not None:
            report.deviations.append(f"{case.name}: deviates, see docs/deviations.md#{deviation.number}")
        elif wrong or not comparisons:
            worst = max((c.error for c in wrong), default=float("nan"))
            names = ", ".join(c.name for c in wrong) or "nothing compared"
            report.failures.append(f"{case.name}: {names} (error {worst:.2e})")
            report.error = max(report.error, worst)
        elif deviation is not None:
            report.failures.append(f"{case.name}: listed as a deviation, but it agrees")
        else:
            report.passed += 1
            report.error = max([report.error, *(c.error for c in comparisons)])
    return report


def _in_short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n", 1)[0]


def main(arguments: list[str] | None = None) -> int:
    """Checks a folder of golden files; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path, help="folder with golden .npz files")
    directory = parser.parse_args(arguments).directory
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        print(f"{directory}: no .npz files found", file=sys.stderr)
        return 2
    reports = []
    for path in paths:
        report = check_file(path)
        reports.append(report)
        print(report, flush=True)
        for line in report.failures + report.deviations + sorted(set(report.not_ported))[:3]:
            print(f"    {line}")
    passed, failed = sum(r.passed for r in reports), sum(len(r.failures) for r in reports)
    print(
        f"{passed} passed, {failed} failed, {sum(len(r.deviations) for r in reports)} deviate, "
        f"{sum(len(r.not_ported) for r in reports)} not ported"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
