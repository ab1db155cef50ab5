"""Makes the pictures and the table of docs/figure1.md from the measurements of the study.

python -m studies.figure1.report
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import DOCS, with_section

MEASUREMENTS = Path(__file__).with_name("results.json")
Measurements = Mapping[str, Any]

_COLORS = {
    "one instance": "#4477aa",
    "CCP": "#cc3311",
    "one instance, one proxy": "#777777",
    "CCP, proxies learn 5 times as fast": "#ddaa33",
}
_MARKERS = dict(zip(_COLORS, "osD^", strict=True))
# Paul Tol's muted colours, which colour-blind readers can tell apart, and grey.
_CLASS_COLORS = (
    "#332288",
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#777777",
)
_SPLITS = {"train": "training images", "test": "held-out test images of the same classes"}
_MEASURES = {"radius": "all images", "radius_95": "95 % of the images"}


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    measurements = json.loads(MEASUREMENTS.read_text(encoding="utf-8"))
    file = DOCS / "figure1.md"
    text = file.read_text(encoding="utf-8")
    file.write_text(with_section(text, "table", "studies.figure1", table(measurements)), encoding="utf-8")
    _draw_classes(measurements, DOCS / "figure1_classes.png")
    _draw_radius(measurements, DOCS / "figure1_radius.png")
    _draw_spread(measurements, DOCS / "figure1_spread.png")


def _at_ends(
    measurements: Measurements, arm: str, kind: str, split: str, measure: str
) -> dict[int, list[float]]:
    """Values of all seeds at the end of each instance, by step; `kind` is `"trained"` or `"chosen"`."""
    values: dict[int, list[float]] = {}
    for curve in measurements["runs"][arm]["curves"]:
        for row in curve:
            if (
                row["step"]
                and row["step"] % measurements["steps_per_instance"] == 0
                and row["proxies"] == kind
            ):
                values.setdefault(row["step"], []).append(row[split][measure])
    return values


def table(measurements: Measurements) -> Iterator[str]:
    """The table of the held-out test images."""
    steps = list(_at_ends(measurements, "CCP", "trained", "test", "radius"))
    yield f"| {_SPLITS['test']}, after | " + " | ".join(f"{step} steps" for step in steps) + " |"
    yield "|---|" + "---|" * len(steps)
    rows = {
        "covering radius": "radius",
        "radius of 95 %": "radius_95",
        "distance between proxies": "proxy_spread",
        "nearest proxy is of the right class, in %": "accuracy",
    }
    for label, measure in rows.items():
        for arm in measurements["runs"]:
            if measure == "proxy_spread" and arm == "one instance, one proxy":
                continue
            values = _at_ends(measurements, arm, "trained", "test", measure)
            yield f"| {label}: {arm} | " + " | ".join(_cell(values[step], measure) for step in steps) + " |"
        if measure != "accuracy":
            values = _at_ends(measurements, "CCP", "chosen", "test", measure)
            yield (
                f"| {label}: CCP, new proxies | "
                + " | ".join(_cell(values[step], measure) for step in steps)
                + " |"
            )


def _cell(values: list[float], measure: str) -> str:
    scale, digits = (100, 0) if measure == "accuracy" else (1, 2)
    values = [scale * value for value in values]
    return f"{statistics.mean(values):.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def _draw_classes(measurements: Measurements, path: Path) -> None:
    from matplotlib import pyplot

    arms = ("one instance", "CCP")
    pictures = {arm: measurements["runs"][arm]["pictures"] for arm in arms}
    columns = len(pictures["CCP"])
    figure, axes = pyplot.subplots(
        2, columns, figsize=(4.1 * columns, 9.2), layout="constrained", sharex=True, sharey=True
    )
    for row, arm in zip(axes, arms, strict=True):
        for index, (axis, picture) in enumerate(zip(row, pictures[arm], strict=True)):
            _draw_plane(axis, picture)
            step = (index + 1) * measurements["steps_per_instance"]
            name = f"end of instance {index + 1}" if arm == "CCP" else "still instance 1"
            axis.set_title(f"{arm}: {step} steps, {name}", fontsize=11)
    figure.suptitle(
        "Fashion-MNIST in the plane: with one problem instance the proxies of a class coalesce (top); "
        "CCP chooses new ones from the images (bottom)",
        fontsize=14,
    )
    _add_legend(figure, measurements["class_names"])
    figure.savefig(path, dpi=95)
    pyplot.close(figure)


def _draw_plane(axis: Any, picture: Mapping[str, Any]) -> None:
    """Images as dots, trained proxies as circles, new ones as stars, in the colours of their classes."""
    for label, color in enumerate(_CLASS_COLORS):
        images = np.array(picture["embeddings"][label])
        axis.scatter(*images.T, s=9, color=color, alpha=0.45, linewidths=0)
    for label, color in enumerate(_CLASS_COLORS):
        if "new" in picture:
            proxies = np.array(picture["new"])[:, label]
            axis.scatter(*proxies.T, s=75, marker="*", facecolor="white", edgecolor=color, linewidths=1.2)
    for label, color in enumerate(_CLASS_COLORS):
        proxies = np.array(picture["old"])[:, label]
        axis.scatter(*proxies.T, s=42, marker="o", color=color, edgecolor="black", linewidths=0.9)
    axis.set_aspect("equal")
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.2)


def _add_legend(figure: Any, class_names: list[str]) -> None:
    from matplotlib.lines import Line2D

    def mark(label: str, **style: Any) -> Line2D:
        return Line2D([], [], linestyle="", label=label, **style)

    figure.legend(
        handles=[
            *(
                mark(name, marker="o", markersize=7, color=color)
                for name, color in zip(class_names, _CLASS_COLORS, strict=True)
            ),
            mark("image (60 of each class)", marker=".", color="black", alpha=0.5),
            mark("trained proxy (old)", marker="o", color="white", markeredgecolor="black", markersize=7),
            mark(
                "chosen for the next instance (new)",
                marker="*",
                color="white",
                markeredgecolor="black",
                markersize=11,
            ),
        ],
        loc="outside lower center",
        ncols=7,
        frameon=False,
        fontsize=11,
    )


def _draw_radius(measurements: Measurements, path: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(10.5, 7.6), layout="constrained", sharex=True, sharey="row")
    for row, (measure, covered) in zip(axes, _MEASURES.items(), strict=True):
        for axis, (split, images) in zip(row, _SPLITS.items(), strict=True):
            for arm in measurements["runs"]:
                _draw_ends(axis, measurements, arm, "trained", split, measure)
            _draw_ends(axis, measurements, "CCP", "chosen", split, measure)
            axis.set_title(f"{covered}: {images}", fontsize=10.5)
            axis.grid(alpha=0.25)
        row[0].set_ylim(bottom=0)
        row[0].set_ylabel("radius / mean distance of two images")
    steps = measurements["steps_per_instance"]
    ends = list(_at_ends(measurements, "CCP", "trained", "train", "radius"))
    for axis in axes[1]:
        axis.set_xticks(ends, [f"{step // steps}\n({step})" for step in ends])
        axis.set_xlabel("problem instance of CCP (steps at its end)")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"How far images are from the nearest proxy of their class ({_seeds(measurements)})")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_ends(axis: Any, measurements: Measurements, arm: str, kind: str, split: str, measure: str) -> None:
    values = _at_ends(measurements, arm, kind, split, measure)
    chosen = kind == "chosen"
    axis.errorbar(
        list(values),
        [statistics.mean(of_step) for of_step in values.values()],
        [statistics.stdev(of_step) for of_step in values.values()],
        color=_COLORS[arm],
        marker="*" if chosen else _MARKERS[arm],
        markersize=10 if chosen else 5,
        markerfacecolor="white" if chosen else None,
        linestyle="--" if chosen else "-",
        capsize=3,
        label=f"{arm}: newly chosen proxies" if chosen else f"{arm}: trained proxies",
    )


def _draw_spread(measurements: Measurements, path: Path) -> None:
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(9, 5), layout="constrained")
    for arm, run in measurements["runs"].items():
        if run["setting"]["proxies_per_class"] == 1:
            continue
        steps = [row["step"] for row in run["curves"][0]]
        values = np.array([[row["train"]["proxy_spread"] for row in curve] for curve in run["curves"]])
        mean, deviation = values.mean(0), values.std(0, ddof=1)
        axis.plot(steps, mean, color=_COLORS[arm], marker=_MARKERS[arm], markersize=3.5, label=arm)
        axis.fill_between(
            steps, mean - deviation, mean + deviation, color=_COLORS[arm], alpha=0.18, linewidth=0
        )
    axis.axhline(
        1, color="black", linewidth=0.8, linestyle=":", label="as far apart as two images of the class"
    )
    axis.set_ylim(bottom=0)
    axis.set_xlabel("training steps; CCP chooses new proxies where its curves jump up")
    axis.set_ylabel("distance of two proxies\n/ distance of two images (means)")
    axis.set_title(
        f"Do the proxies of a class coalesce? (training images, {_seeds(measurements)})", fontsize=11
    )
    axis.grid(alpha=0.25)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _seeds(measurements: Measurements) -> str:
    return f"{len(measurements['runs']['CCP']['curves'])} seeds, mean ± standard deviation"


if __name__ == "__main__":
    main()
