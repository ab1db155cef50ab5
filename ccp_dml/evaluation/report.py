"""Results as a table for the terminal and as a dictionary for a JSON file. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COLUMNS = {"precision_at_1": "P@1", "r_precision": "P@R", "map_at_r": "MAP@R"}
_LISTS = {"recall_at_k": "R@", "precision_at_k": "P@", "map_at_k": "MAP@"}


def format_table(rows: Mapping[str, Mapping[str, Any]], decimals: int = 1) -> str:
    """Lays results out as aligned plain text, in percent.

    Args:
        rows: by name ("frozen features", "CCP"), the means of a result, as of `RetrievalResult.means()`.
        decimals: places after the point.

    Returns:
        Lines without a trailing newline; a value that a row lacks is shown as a dash. R@1 is P@1 and not
        repeated.

    Raises:
        ValueError: if there is no row.
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    cells = {name: _cells(means, decimals) for name, means in rows.items()}
    headings = sorted({heading for row in cells.values() for heading in row}, key=_place)
    table = [["", *headings]]
    table += [[name, *(row.get(heading, "-") for heading in headings)] for name, row in cells.items()]
    widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
    lines = []
    for line in table:
        first, *others = (text.rjust(width) for text, width in zip(line, widths))
        lines.append("  ".join([line[0].ljust(len(first)), *others]).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines + _notes(rows))


def results_dict(
    test: Mapping[str, Any],
    validation: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
    versions: Mapping[str, str] | None = None,
    **extra: Any,
) -> dict[str, Any]:
    """The content of `results.json`.

    Args:
        test: means of the test evaluation, as of `RetrievalResult.means()`.
        validation: means of the validation that chose the weights; None: there was none.
        config: the run's flags.
        versions: package versions.
        **extra: further sections, such as a baseline.

    Returns:
        A dictionary with these keys, ready for JSON.
    """
    results: dict[str, Any] = {
        "test": dict(test),
        "validation": None if validation is None else dict(validation),
        "config": dict(config or {}),
        "versions": dict(versions or {}),
    }
    results.update(extra)
    return results


def _cells(means: Mapping[str, Any], decimals: int) -> dict[str, str]:
    cells = {heading: _percent(means[key], decimals) for key, heading in _COLUMNS.items() if key in means}
    for key, heading in _LISTS.items():
        for k, value in means.get(key, {}).items():
            if heading != "R@" or int(k) != 1:
                cells[f"{heading}{k}"] = _percent(value, decimals)
    return cells


def _place(heading: str) -> tuple[int, int]:
    """Column order: the three main metrics, then the lists, each by k."""
    main = list(_COLUMNS.values())
    if heading in main:
        return main.index(heading) - len(main), 0
    kind, k = heading.split("@")
    return list(_LISTS.values()).index(f"{kind}@"), int(k)


def _percent(value: float, decimals: int) -> str:
    return f"{100 * value:.{decimals}f}"


def _notes(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line where queries were left out, so that nobody compares means over different sets unawares."""
    return [
        f"{name}: {means['num_queries_without_positives']} of {means['num_queries']} queries have no other "
        "image of their class and are left out"
        for name, means in rows.items()
        if means.get("num_queries_without_positives")
    ]
