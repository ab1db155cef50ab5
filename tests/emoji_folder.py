"""Folders of a few of the built-in emoji, for tests of what a folder of images can be."""

from __future__ import annotations

import zipfile
from pathlib import Path

DESIGNS = ("noto", "noto-v1", "fluent-emoji-flat", "fxemoji", "noto-emoji")
ARCHIVE = Path(__file__).parents[1] / "datasets" / "emoji" / "emoji.zip"


def write_emoji(folder: Path, num_classes: int, emoji_per_class: int = 1) -> list[str]:
    """Writes classes of one or more emoji, five designs of each; returns the names of the classes."""
    with zipfile.ZipFile(ARCHIVE) as archive:
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
