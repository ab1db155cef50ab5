"""Where the time of a run goes: training, waiting for data, validation, resets.

    python -m benchmarks.shares                      # a quarter of an hour
    python -m benchmarks.shares --epochs 2 --no-write

Three runs of configs/emoji.cfg: as it is, all of its epochs; on a set as large as CUB-200-2011, 100 training
classes of 59 JPEGs of 500 × 375 pixels, a quarter of the classes held out; and the same with
--prepared_shorter_side=256. The large sets are random parts of a few photographs, as in benchmarks/input.py:
what the runs score means nothing. An epoch has 100 steps there, and there are few of them, so that what a run
does once counts for more than in a real one. The backbone is that of the emoji, for images of 224 pixels.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks.input import photographs
from benchmarks.measuring import write
from ccp_dml import experiment
from ccp_dml.config import command_line

CLASSES, TRAINING_CLASSES, IMAGES_PER_CLASS = 106, 100, 59
LARGE = ("--image_size=224", "--test_shorter_side=256", "--steps_per_epoch=100")
PARTS = ("training", "data_wait", "validation", "resets", "other")

Shares = dict[str, dict[str, float]]


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.epochs)
    for line in table(found):
        print(line)
    if options.write:
        write("shares", {"epochs": options.epochs, "shares": found}, table(found))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--epochs", type=int, default=3, help="epochs of the runs on the large sets (3)")
    add("--write", action=argparse.BooleanOptionalAction, default=True, help="write shares.json and the docs")
    return parser.parse_args()


def measure(folder: Path, epochs: int) -> Shares:
    write_images(folder / "images")
    large = [
        "--dataset=image_folder",
        f"--data_dir={folder}/images",
        f"--prepared_dir={folder}/prepared",
        f"--train_fraction={TRAINING_CLASSES / CLASSES}",
        f"--max_epochs={epochs}",
        *LARGE,
    ]
    runs = {
        "emoji": [],
        f"as large as CUB, {epochs} epochs": large,
        f"the same, 256 px copies, {epochs} epochs": [*large, "--prepared_shorter_side=256"],
    }
    found = {}
    for number, (name, flags) in enumerate(runs.items()):
        run_dir = f"--run_dir={folder}/run{number}"
        config = command_line.parse(["--flagfile=configs/emoji.cfg", *flags, run_dir])
        found[name] = experiment.train(config)["time_shares"]
    return found


def write_images(folder: Path) -> None:
    for number, file in enumerate(photographs(CLASSES * IMAGES_PER_CLASS)):
        path = folder / f"{number % CLASSES:03}" / f"{number // CLASSES:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)


def table(found: Shares) -> Iterator[str]:
    yield "| | training | of it, waiting for data | validation | resets | other |"
    yield "|---|---|---|---|---|---|"
    for name, shares in found.items():
        yield f"| {name} | " + " | ".join(f"{shares[part]:.1%}" for part in PARTS) + " |"


if __name__ == "__main__":
    main()
