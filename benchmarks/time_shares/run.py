"""Shares of a run's time: training, waiting for data, validation, resets.

    python -m benchmarks.time_shares.run             # a quarter of an hour
    python -m benchmarks.time_shares.run --quick     # one epoch on few images

Three runs of configs/emoji.cfg: all of its epochs; three epochs on a set as large as CUB-200-2011, 100
training classes of 59 JPEGs of 500 × 375 pixels, a quarter of the classes held out; and the same with
--prepared_shorter_side=256. The large sets are random crops of a few photographs, as in benchmarks.input, so
the scores mean nothing. They have few epochs of 100 steps, so the one-time work of a run weighs more than in
a real one. The backbone is that of the emoji, on images of 224 pixels.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.common import results
from benchmarks.input.run import photographs
from ccp_dml.config import command_line
from ccp_dml.experiment.run import train

CLASSES, TRAINING_CLASSES, IMAGES_PER_CLASS, EPOCHS = 106, 100, 59, 3


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    epochs = 1 if options.quick else EPOCHS
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), epochs, options.quick)
    results.publish("time_shares", {"epochs": epochs, "shares": found}, write=not options.quick)


def measure(folder: Path, epochs: int, quick: bool) -> dict[str, dict[str, float]]:
    """The time shares of each run."""
    write_images(folder / "images", 8 if quick else IMAGES_PER_CLASS)
    large = [
        "--dataset=image_folder",
        f"--data_dir={folder}/images",
        f"--prepared_dir={folder}/prepared",
        f"--train_fraction={TRAINING_CLASSES / CLASSES}",
        f"--max_epochs={epochs}",
        "--image_size=224",
        "--test_shorter_side=256",
        f"--steps_per_epoch={5 if quick else 100}",
    ]
    runs = {
        "emoji": ["--max_epochs=1"] if quick else [],
        f"as large as CUB, {epochs} epochs": large,
        f"the same, 256 px copies, {epochs} epochs": [*large, "--prepared_shorter_side=256"],
    }
    found = {}
    for number, (name, flags) in enumerate(runs.items()):
        run_dir = f"--run_dir={folder}/run{number}"
        config = command_line.parse(["--flagfile=configs/emoji.cfg", *flags, run_dir])
        found[name] = train(config)["time_shares"]
    return found


def write_images(folder: Path, images_per_class: int) -> None:
    """Writes JPEGs in a sub-folder for each class."""
    for number, file in enumerate(photographs(CLASSES * images_per_class)):
        path = folder / f"{number % CLASSES:03}" / f"{number // CLASSES:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file)


if __name__ == "__main__":
    main()
