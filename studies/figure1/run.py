"""Trains the networks of the study of figure 1: do proxies coalesce, and does CCP spread them?

    python -m studies.figure1.run [--data_dir DIR] [--quick]

Small networks embed Fashion-MNIST into the plane. The measurements are written to results.json, from which
`studies.figure1.report` makes the pictures and the table of docs/figure1.md. The data are those of the Debian
package `dataset-fashion-mnist`. `--quick` makes one short run of each arm and writes nothing.

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

from ccp_dml.datasets.fashion_mnist import source
from studies.figure1.data import CLASSES, Split, load
from studies.figure1.training import Recorder, Setting, train

MEASUREMENTS = Path(__file__).with_name("results.json")
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


def run(data: dict[str, Split], arms: dict[str, Setting], seeds: int) -> dict[str, Any]:
    """Trains every arm with every seed; returns the content of the file of measurements."""
    started = time.monotonic()
    recorders: dict[str, list[Recorder]] = {arm: [] for arm in arms}
    for seed in range(seeds):
        for arm, setting in arms.items():
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
            for arm, setting in arms.items()
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
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data_dir",
        default=source.DEFAULT_DIR,
        help="folder with the four files of Fashion-MNIST (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="train little, and write nothing")
    options = parser.parse_args()
    try:
        data = load(options.data_dir)
    except ValueError as error:
        sys.exit(f"error: {error}")
    if options.quick:
        run(data, {arm: dataclasses.replace(setting, epochs=1) for arm, setting in ARMS.items()}, seeds=1)
    else:
        MEASUREMENTS.write_text(json.dumps(run(data, ARMS, SEEDS)) + "\n")


if __name__ == "__main__":
    main()
