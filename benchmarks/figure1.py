"""Figure 1 of the paper's supplement, on Fashion-MNIST: do proxies coalesce, and does CCP spread them?

    python -m benchmarks.figure1 [--data_dir DIR]
    python -m benchmarks.figure1 report

The first trains small networks to a two-dimensional embedding, writes all measurements to
`benchmarks/figure1.json`, and makes the pictures and the table of `docs/figure1.md` from that file; the
second only makes these again. The data are those of the Debian package `dataset-fashion-mnist`.

Budget: 10 minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import figure1_report
from benchmarks.figure1_data import CLASSES, Split, load
from benchmarks.figure1_training import Recorder, Setting, train
from datasets.fashion_mnist import source

PROJECT = Path(__file__).resolve().parents[1]
MEASUREMENTS = PROJECT / "benchmarks" / "figure1.json"
SEEDS = 3

CCP = Setting()
ARMS = {
    "one instance": dataclasses.replace(CCP, epochs_per_instance=CCP.epochs + 1),
    "CCP": CCP,
    "one instance, one proxy": dataclasses.replace(
        CCP, epochs_per_instance=CCP.epochs + 1, proxies_per_class=1
    ),
    "CCP, proxies learn 5 times as fast": dataclasses.replace(CCP, proxy_multiplier=5.0),
}
STEPS_PER_INSTANCE = CCP.epochs_per_instance * CCP.steps_per_epoch

_DRAWN_PER_CLASS = 60
_DIGITS = 4


def run(data: dict[str, Split]) -> dict[str, Any]:
    """Trains every arm with every seed; returns what the file of measurements holds."""
    started = time.monotonic()
    recorders: dict[str, list[Recorder]] = {arm: [] for arm in ARMS}
    for seed in range(SEEDS):
        for arm, setting in ARMS.items():
            recorders[arm].append(train(data, setting, seed, STEPS_PER_INSTANCE))
            print(f"seed {seed}, {arm}: done after {time.monotonic() - started:.0f} s", flush=True)
    return {
        "steps_per_instance": STEPS_PER_INSTANCE,
        "class_names": source.CLASS_NAMES,
        "seconds": round(time.monotonic() - started),
        "cpu_seconds": round(time.process_time()),
        "runs": {
            arm: {
                "setting": dataclasses.asdict(setting),
                "curves": [_rounded(recorder.curve) for recorder in recorders[arm]],
                "pictures": _pictures(recorders[arm][0], setting),
            }
            for arm, setting in ARMS.items()
        },
    }


def _pictures(recorder: Recorder, setting: Setting) -> list[dict[str, Any]]:
    """Some images of each class [C, n, 2] and the proxies [K, C, 2] at the end of each instance."""
    pictures = []
    for picture in recorder.pictures:
        by_class = np.reshape(picture["embeddings"], [CLASSES, setting.measured_per_class, -1])
        drawn = {**picture, "embeddings": by_class[:, :_DRAWN_PER_CLASS]}
        pictures.append({name: _rounded(array.tolist()) for name, array in drawn.items()})
    return pictures


def _rounded(value: Any) -> Any:
    """The same, with every float rounded."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    """Runs and reports the study."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", nargs="?", choices=("run", "report"), default="run")
    parser.add_argument(
        "--data_dir",
        default=source.DEFAULT_DIR,
        help="folder with the four files of Fashion-MNIST (default: %(default)s)",
    )
    arguments = parser.parse_args()
    if arguments.action == "run":
        try:
            data = load(arguments.data_dir)
        except ValueError as error:
            sys.exit(f"error: {error}")
        MEASUREMENTS.write_text(json.dumps(run(data)) + "\n")
    figure1_report.write(json.loads(MEASUREMENTS.read_text()), PROJECT / "docs")


if __name__ == "__main__":
    main()
