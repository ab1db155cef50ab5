"""Tables of results for the terminal. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_HEADINGS = {"precision_at_1": "P@1", "r_precision": "P@R", "map_at_r": "MAP@R"}
_HEADINGS_BY_K = {"recall_at_k": "R@", "precision_at_k": "P@", "map_at_k": "MAP@"}


def format_table(rows: Mapping[str, Mapping[str, Any]], decimals: int = 1) -> str:
    """Formats results as an aligned plain-text table, in percent.

    Args:
        rows: by name ("frozen features", "CCP"), the means of a result, see `RetrievalResult.means`.
        decimals: decimal places.

    Returns:
        Lines without a trailing newline. Values that a row lacks are dashes. R@1 is P@1 and not repeated.

    Raises:
        ValueError: if there is no row.

    Example:
        >>> means = {"precision_at_1": 0.5, "map_at_r": 0.25, "recall_at_k": {"4": 0.75}}
        >>> print(format_table({"CCP": means}))
              P@1  MAP@R   R@4
        ----------------------
        CCP  50.0   25.0  75.0
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    cells = {name: _cells(means, decimals) for name, means in rows.items()}
    headings = sorted({heading for row in cells.values() for heading in row}, key=_order)
    table = [["", *headings]]
    table += [[name, *(row.get(heading, "-") for heading in headings)] for name, row in cells.items()]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [
        "  ".join([name.ljust(widths[0]), *(text.rjust(width) for text, width in zip(values, widths[1:]))])
        for name, *values in table
    ]
    lines = [line.rstrip() for line in lines]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines + _remarks(rows))


def flatten(means: Mapping[str, Any]) -> dict[str, Any]:
    """Flat names of results: the value of `recall_at_k` at 4 becomes `recall_at_4`."""
    flat: dict[str, Any] = {}
    for name, value in means.items():
        if isinstance(value, Mapping):
            flat |= {f"{name.removesuffix('_k')}_{k}": item for k, item in value.items()}
        else:
            flat[name] = value
    return flat


def _cells(means: Mapping[str, Any], decimals: int) -> dict[str, str]:
    """Formatted values by heading."""
    values = {heading: means[name] for name, heading in _HEADINGS.items() if name in means}
    for name, heading in _HEADINGS_BY_K.items():
        values |= {f"{heading}{k}": value for k, value in means.get(name, {}).items()}
    values.pop("R@1", None)
    return {heading: f"{100 * value:.{decimals}f}" for heading, value in values.items()}


def _order(heading: str) -> tuple[int, int]:
    """Sort key of the columns: the three main metrics, then the lists, each by k."""
    main = list(_HEADINGS.values())
    if heading in main:
        return main.index(heading) - len(main), 0
    kind, k = heading.split("@")
    return list(_HEADINGS_BY_K.values()).index(f"{kind}@"), int(k)


def _remarks(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line per row whose means skip queries: means over different queries must not be compared."""
    return [
        f"{name}: {means['num_queries_without_positives']} of {means['num_queries']} queries have no other "
        "image of their class and are left out"
        for name, means in rows.items()
        if means.get("num_queries_without_positives")
    ]
