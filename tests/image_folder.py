"""Small folders of random images for the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

# The smallest model there is, on batches of 3 classes x 2 images.
SMALL_RUN = (
    "--dataset=image_folder",
    "--backbone=cifar_resnet",
    "--image_size=32",
    "--embedding_size=8",
    "--classes_per_batch=3",
    "--samples_per_class=2",
    "--proxies_per_class=2",
    "--pool_size=3",
)


def write_image(file: Path, color: tuple[int, int, int], seed: int = 0) -> None:
    """Writes a noisy picture of 36 x 40 pixels; the suffix decides the format."""
    noise = np.random.default_rng(seed).normal(0, 30, (40, 36, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + color, 0, 255).astype(np.uint8)).save(file)


def write_classes(folder: Path, num_classes: int, images_per_class: int = 3) -> Path:
    """Writes one sub-folder of PNG files per class, each class in a color of its own; returns the folder."""
    for label in range(num_classes):
        color = (20 * label, 255 - 20 * label, 37 * label % 256)
        for index in range(images_per_class):
            write_image(folder / f"class {label:02d}" / f"{index}.png", color, seed=10 * label + index)
    return folder


def write_manifest(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Writes `manifest.csv` with rows of (file, label, split)."""
    lines = ["file,label,split", *(",".join(row) for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
