"""Small folders of images for the tests of commands and runs."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

DESIGNS = ("noto", "noto-v1", "fluent-emoji-flat", "fxemoji", "noto-emoji")
_EMOJI = Path(__file__).parents[2] / "datasets" / "emoji" / "emoji.zip"
# The smallest model, on batches of 3 classes x 2 images.
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
    """Writes a noisy picture of 36 x 40 pixels in the format of the suffix."""
    noise = np.random.default_rng(seed).normal(0, 30, (40, 36, 3))
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + color, 0, 255).astype(np.uint8)).save(file)


def write_classes(folder: Path, num_classes: int, images_per_class: int = 3) -> Path:
    """Writes one sub-folder of PNG files per class, each in its own color; returns the folder."""
    for label in range(num_classes):
        color = (20 * label, 255 - 20 * label, 37 * label % 256)
        for index in range(images_per_class):
            write_image(folder / f"class {label:02d}" / f"{index}.png", color, seed=10 * label + index)
    return folder


def write_manifest(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Writes `manifest.csv` with rows of (file, label, split)."""
    lines = ["file,label,split", *(",".join(row) for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_emoji(folder: Path, num_classes: int, emoji_per_class: int = 1) -> list[str]:
    """Writes classes of one or more built-in emoji in five designs; returns the names of the classes."""
    with zipfile.ZipFile(_EMOJI) as archive:
        codes = [line.split("\t")[0] for line in archive.read("classes.tsv").decode().splitlines()]
        names = []
        for label in range(num_classes):
            names.append(f"class {label:02d}")
            (folder / names[-1]).mkdir(parents=True)
            for code in codes[label * emoji_per_class :][:emoji_per_class]:
                for design in DESIGNS:
                    image = archive.read(f"{code}/{design}.webp")
                    (folder / names[-1] / f"{code} {design}.webp").write_bytes(image)
    return names
