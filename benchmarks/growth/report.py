"""Plot, fitted exponents and extrapolation of the growth benchmark.

python -m benchmarks.growth.report    # makes them anew from the results
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common.results import DOCS, Headline, machine_line, read, write_sections

DOCUMENT = "scaling.md"
Point = Mapping[str, Any]

_AXES = {
    "N": "images N",
    "C": "classes C",
    "D": "dimension D",
    "K": "proxies per class K",
    "B": "batch B",
    "M": "memory rows M",
}
_MEASURES = {"seconds": "processor time", "megabytes": "memory added"}
# The memory of a process varies by this much by chance; no slope is fitted to less.
_LEAST = {"seconds": 0.0, "megabytes": 5.0}
_FITTED = 3
# Paul Tol's muted colours, which the colour-blind tell apart.
_COLORS = ("#332288", "#88ccee", "#44aa99", "#117733", "#999933", "#ddcc77", "#cc6677", "#882255", "#aa4499")
_MARKERS = "osD^v<>Ph"


@dataclass(frozen=True)
class Need:
    """The needs of a component at a great size, scaled from its largest measured point.

    Attributes:
        component: its name.
        axis: the size that grows; time grows with its power `time`, memory with its power `memory`.
        what: the first cell of its row.
        division: the last cell of its row: the work that has to be divided, and what divides it.
    """

    component: str
    axis: str
    time: int
    memory: int
    what: str
    division: str


LARGE = {"N": 100_000_000, "C": 10_000_000}
QUERIES = 10_000
# The search holds the gallery twice, once with its squared norms.
GALLERY_COPIES = 2
NEEDS = (
    Need(
        "retrieval",
        "N",
        2,
        1,
        "retrieval, all images against all",
        "queries are divided among the workers, each with the whole gallery; the gallery would have to be "
        "divided too, and the candidates merged as those of its tiles are",
    ),
    Need(
        "pool",
        "C",
        1,
        1,
        "drawing a pool of 2K, without the forward passes",
        "classes: every worker embeds the draws of its classes",
    ),
    Need(
        "k_center",
        "C",
        1,
        1,
        "k-center, K of a pool of 2K",
        "classes, which are independent: a block of them at a time, every worker its own",
    ),
    Need("sampler", "N", 1, 1, "making the sampler", "nothing: it fits into every worker"),
    Need("batches", "N", 0, 0, "2000 batches", "nothing: a batch is a function of (seed, step)"),
    Need(
        "proxy_loss",
        "C",
        1,
        1,
        "a step of the loss with proxies, its gradients included",
        "proxies, by class, with the optimizer's slots: every replica of a `tf.distribute` strategy compares "
        "the batch with its own, as under *Many classes*",
    ),
    Need("memory_loss", "M", 0, 0, "a step with the memory (its rows need not grow)", "nothing"),
)


def sections(results: Mapping[str, Any]) -> dict[str, Iterator[str]]:
    return {"growth": _tables(results)}


def headlines(results: Mapping[str, Any]) -> Iterator[Headline]:
    yield from ()


def _tables(results: Mapping[str, Any]) -> Iterator[str]:
    yield machine_line(results)
    yield ""
    yield from _exponents(results["points"])
    yield ""
    yield from _extrapolation(results["points"])


def _curves(points: list[Point], axis: str) -> dict[str, list[Point]]:
    """Points along an axis in ascending order, by the title of the component."""
    curves: dict[str, list[Point]] = {}
    for point in points:
        if point["axis"] == axis:
            curves.setdefault(point["title"], []).append(point)
    return curves


def _usual(points: list[Point]) -> dict[str, int]:
    """Each size when another one grows."""
    return {axis: next(point["sizes"][axis] for point in points if point["axis"] != axis) for axis in _AXES}


def exponent(sizes: list[float], values: list[float], least: float = 0.0) -> float | None:
    """Slope of a line through the last points in the log-log plot; None if too few are above `least`."""
    above = [(size, value) for size, value in zip(sizes, values) if value > least][-_FITTED:]
    if len(above) < _FITTED:
        return None
    slope, _ = np.polyfit(*np.log(np.array(above)).T, 1)
    return float(slope)


def _exponents(points: list[Point]) -> Iterator[str]:
    usual = ", ".join(f"{name} = {size:,}" for name, size in _usual(points).items())
    yield f"Sizes that do not grow are {usual}; a pool draws 2K."
    yield ""
    yield "| part | grows | from | to | time at the largest | exponent | memory at the largest | exponent |"
    yield "|---|---|---|---|---|---|---|---|"
    for title in dict.fromkeys(point["title"] for point in points):
        for axis in _AXES:
            curve = _curves(points, axis).get(title, [])
            if not curve:
                continue
            sizes = [point["sizes"][axis] for point in curve]
            cells = [title, axis, f"{sizes[0]:,}", f"{sizes[-1]:,}"]
            for measure, last in (("seconds", duration), ("megabytes", room)):
                values = [point[measure] for point in curve]
                slope = exponent(sizes, values, _LEAST[measure])
                cells += [last(values[-1]), "–" if slope is None else f"{slope:.1f}"]
            yield "| " + " | ".join(cells) + " |"


def _extrapolation(points: list[Point]) -> Iterator[str]:
    sizes = _usual(points)
    images, classes = LARGE["N"], LARGE["C"]
    row = 4 * sizes["D"]
    yield (
        f"**Extrapolated, not measured**: {images:,} images of {classes:,} classes, D = {sizes['D']}, "
        f"K = {sizes['K']}, B = {sizes['B']}. Time (of one core) and added memory are those of "
        "the largest measured point times the growth of N or C to the power that the algorithm has. The "
        "memory of embeddings and proxies is computed, as is that of retrieval: "
        f"at least {GALLERY_COPIES} times the embeddings, and blocks of constant size."
    )
    yield ""
    yield "| | time | memory | what must be split, and what does it |"
    yield "|---|---|---|---|"
    yield (
        f"| embeddings of all images | a forward pass each | {room(images * row / 1e6)} | "
        "images: `tf.data` shards, each worker writes its own rows |"
    )
    yield (
        f"| proxies and two slots of Adam | – | {room(3 * classes * sizes['K'] * row / 1e6)} | "
        "by class (`--shard_proxies`); of several workers the chief gathers all of it for a checkpoint, "
        "which would have to be divided too |"
    )
    for need in NEEDS:
        yield _needed(need, points)
        if need.component == "retrieval":
            yield _few_queries(need, points)


def _needed(need: Need, points: list[Point]) -> str:
    point, growth = _largest(need, points)
    megabytes = point["megabytes"] * growth**need.memory
    if need.component == "retrieval":
        megabytes = GALLERY_COPIES * 4 * point["sizes"]["D"] * LARGE["N"] / 1e6
    cells = need.what, duration(point["seconds"] * growth**need.time), room(megabytes), need.division
    return "| " + " | ".join(cells) + " |"


def _few_queries(need: Need, points: list[Point]) -> str:
    point, growth = _largest(need, points)
    seconds = point["seconds"] * growth * QUERIES / point["sizes"]["N"]
    return f"| retrieval, {QUERIES:,} queries against all | {duration(seconds)} | as above | as above |"


def _largest(need: Need, points: list[Point]) -> tuple[Point, float]:
    """The largest point along the axis of a component, and the factor to the great size."""
    curve = [point for point in points if point["part"] == need.component and point["axis"] == need.axis]
    return curve[-1], LARGE.get(need.axis, 0) / curve[-1]["sizes"][need.axis]


def duration(seconds: float) -> str:
    units = {"days": 86_400.0, "h": 3600.0, "min": 60.0, "s": 1.0, "ms": 1e-3}
    unit = next((name for name, size in units.items() if seconds >= size), "ms")
    return f"{_rounded(seconds / units[unit])} {unit}"


def room(megabytes: float) -> str:
    for unit, size in {"TB": 1e6, "GB": 1e3}.items():
        if megabytes >= size:
            return f"{_rounded(megabytes / size)} {unit}"
    return f"{_rounded(megabytes)} MB"


def _rounded(value: float) -> str:
    """Two significant digits, more only before the decimal point."""
    if not value:
        return "0"
    return f"{value:,.{max(0, 1 - math.floor(math.log10(value)))}f}"


def draw() -> None:
    """Draws docs/scaling.png from the results."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = read("growth")["points"]
    titles = list(dict.fromkeys(point["title"] for point in points))
    style = {title: {"color": c, "marker": m} for title, c, m in zip(titles, _COLORS, _MARKERS)}
    figure, grid = pyplot.subplots(
        len(_MEASURES), len(_AXES), figsize=(17, 8), layout="constrained", sharex="col", sharey="row"
    )
    for row, (measure, label) in zip(grid, _MEASURES.items()):
        row[0].set_ylabel(label, fontsize=12)
        for plane, axis in zip(row, _AXES):
            for title, curve in _curves(points, axis).items():
                sizes = [point["sizes"][axis] for point in curve]
                # A logarithmic plot leaves out memory that is within chance.
                values = [
                    point[measure] if point[measure] >= 0.2 * _LEAST[measure] else np.nan for point in curve
                ]
                plane.loglog(sizes, values, **style[title], linewidth=1.8, markersize=6)
            plane.grid(alpha=0.3)
            plane.tick_params(labelsize=10)
    for plane, (axis, label) in zip(grid[-1], _AXES.items()):
        plane.set_xlabel(label, fontsize=12)
        plane.set_xticks(_ticks(axis, points), minor=False)
        plane.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
        plane.minorticks_off()
    grid[0, 0].yaxis.set_major_formatter(lambda seconds, _: duration(seconds))
    grid[1, 0].yaxis.set_major_formatter(lambda megabytes, _: room(megabytes))
    handles = [pyplot.Line2D([], [], **style[title], label=title) for title in titles]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=11, frameon=False)
    figure.savefig(DOCS / "scaling.png", dpi=95)
    pyplot.close(figure)


def _ticks(axis: str, points: list[Point]) -> list[int]:
    """The sizes that were measured, or powers of ten if they are far apart."""
    sizes = sorted({point["sizes"][axis] for point in points if point["axis"] == axis})
    if sizes[-1] < 100 * sizes[0]:
        return sizes[::2] if len(sizes) > 4 else sizes
    return [10**power for power in range(1, 9) if sizes[0] <= 10**power <= sizes[-1]]


if __name__ == "__main__":
    write_sections("growth", read("growth"))
    draw()
