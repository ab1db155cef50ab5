"""Makes the tables and the curves of docs/results.md from the measurements of the study on the emoji.

python -m studies.emoji.report
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.common.results import with_section
from studies.emoji.run import RESULTS
from studies.training_runs import COLUMNS, DOCS, Measurements, of_name, spread

_METHODS = {
    "compare/emoji_contrastive": "contrastive",
    "compare/emoji": "CCP, an instance per epoch",
    "compare/emoji, patience 3": "CCP, patience 3 (the paper's rule)",
}
_COLORS = {
    "compare/emoji_contrastive": "#4477aa",
    "compare/emoji": "#cc3311",
    "compare/emoji, patience 3": "#999933",
}


def main() -> None:
    measurements = json.loads(RESULTS.read_text(encoding="utf-8"))
    file = DOCS / "results.md"
    text = file.read_text(encoding="utf-8")
    for name, lines in sections(measurements).items():
        text = with_section(text, name, "studies.emoji", lines)
    file.write_text(text, encoding="utf-8")
    _draw(measurements, DOCS / "emoji_curves.png")


def sections(measurements: Measurements) -> dict[str, Iterator[str]]:
    """The generated sections of the document by name."""
    return {
        "screening": _screening(measurements),
        "comparison": _comparison(measurements),
        "memory": memory(measurements),
    }


def _test_curve(run: Mapping[str, Any]) -> list[tuple[int, float]]:
    return [
        (s, value) for s, value in zip(run["steps"], run["test_map_at_r"], strict=True) if value is not None
    ]


def _at(run: Mapping[str, Any], step: int) -> str:
    curve = dict(_test_curve(run))
    return f"{curve[step]:.1f}" if step in curve else "-"


def _screening(measurements: Measurements) -> Iterator[str]:
    names = {key.rsplit("/", 1)[0] for key in measurements if key.startswith("screen/")}
    yield "| | best validation MAP@R | test MAP@R there | test at 200 | 400 | 800 | 1200 steps | instances |"
    yield "|---|---|---|---|---|---|---|---|"
    rows = []
    for name in names:
        (run,) = of_name(measurements, name)
        best = max(run["validation_map_at_r"])
        cells = [f"{best:.1f}", f"{run['test']['map_at_r']:.1f}"]
        cells += [_at(run, step) for step in (200, 400, 800, 1200)]
        cells.append(str(run["instance"][-1] + 1))
        rows.append((best, f"| {name.removeprefix('screen/')} | " + " | ".join(cells) + " |"))
    for _, row in sorted(rows, reverse=True):
        yield row


def _comparison(measurements: Measurements) -> Iterator[str]:
    yield "| test scores at convergence | seeds | P@1 | P@R | MAP@R | steps of the best epoch |"
    yield "|---|---|---|---|---|---|"
    for name, label in _METHODS.items():
        runs = of_name(measurements, name)
        if not runs:
            continue
        cells = [spread([run["test"][column] for run in runs]) for column in COLUMNS]
        cells.append(spread([(run["best_epoch"] + 1) * run["steps_per_epoch"] for run in runs], digits=0))
        yield f"| {label} | {len(runs)} | " + " | ".join(cells) + " |"
    yield ""
    common = _common_steps(measurements)
    yield "| test MAP@R at equal steps | " + " | ".join(str(step) for step in common) + " |"
    yield "|---|" + "---|" * len(common)
    for name, label in _METHODS.items():
        runs = of_name(measurements, name)
        if runs:
            cells = [spread([dict(_test_curve(run))[step] for run in runs]) for step in common]
            yield f"| {label} | " + " | ".join(cells) + " |"


def memory(measurements: Measurements) -> Iterator[str]:
    """The finished runs of the phase `memory`, by the age of remembered embeddings."""
    names = {key.rsplit("/", 1)[0] for key in measurements if key.startswith("memory/")}
    yield (
        "| `pool_memory_steps` | seeds | P@1 | P@R | MAP@R | steps of the best epoch | "
        "MAP@R after all steps | resets' share of the time |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for name in sorted(names, key=lambda name: int(name.removeprefix("memory/"))):
        runs = of_name(measurements, name)
        cells = [spread([run["test"][column] for run in runs]) for column in COLUMNS]
        cells.append(spread([(run["best_epoch"] + 1) * run["steps_per_epoch"] for run in runs], digits=0))
        cells.append(spread([_test_curve(run)[-1][1] for run in runs]))
        cells.append(spread([100 * run["resets_share"] for run in runs]) + " %")
        yield f"| {name.removeprefix('memory/')} | {len(runs)} | " + " | ".join(cells) + " |"


def _common_steps(measurements: Measurements, most: int = 9) -> list[int]:
    """At most `most` steps, evenly spread, at which every run of the comparison was tested."""
    tested = [
        {step for step, _ in _test_curve(run)} for name in _METHODS for run in of_name(measurements, name)
    ]
    common = sorted(set.intersection(*tested)) if tested else []
    stride = -(-len(common) // most) or 1
    return common[stride - 1 :: stride]


def _draw(measurements: Measurements, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.8), sharey=False, layout="constrained")
    for name, label in _METHODS.items():
        for index, run in enumerate(of_name(measurements, name)):
            style = {
                "color": _COLORS[name],
                "alpha": 0.8,
                "linewidth": 1.4,
                "label": None if index else label,
            }
            axes[0].plot(*zip(*_test_curve(run), strict=True), **style)
            axes[1].plot(run["steps"], run["validation_map_at_r"], **style)
    for axis, title in zip(axes, ("unseen test classes", "held-out training classes"), strict=True):
        axis.set_title(title)
        axis.set_xlabel("training steps")
        axis.set_ylabel("MAP@R in %")
        axis.grid(alpha=0.25)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
