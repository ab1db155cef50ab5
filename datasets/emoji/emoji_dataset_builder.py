"""Emoji, the built-in data set: 645 classes of five drawings each."""

from __future__ import annotations

import pathlib
import zipfile
from collections.abc import Iterator, Sequence

import tensorflow_datasets as tfds

from ccp_dml.datasets.common import images, labelled_images
from ccp_dml.datasets.common.local_builder import LocalBuilder

DESIGNS = ("noto", "noto-v1", "fluent-emoji-flat", "fxemoji", "noto-emoji")


class Builder(LocalBuilder):
    """Builds the data set from the archive beside this file.

    In the order of code points, the first half of the classes is `train` and the second half is `test`. The
    image id is the index of the class times the number of designs, plus the index of the design.
    """

    ARCHIVE = pathlib.Path(__file__).with_name("emoji.zip")
    NUM_CLASSES = 645

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=labelled_images.features([f"{code} {name}" for code, name in self._read_classes()]),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # Keeps records in the order of their image ids.
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        classes = self._read_classes()
        if len(classes) != self.NUM_CLASSES:
            raise ValueError(f"{self.ARCHIVE} lists {len(classes)} classes; expected {self.NUM_CLASSES}")
        half = len(classes) // 2
        return {
            "train": self._generate_examples(classes[:half], first_class=0),
            "test": self._generate_examples(classes[half:], first_class=half),
        }

    def _generate_examples(self, classes: Sequence[tuple[str, str]], first_class: int) -> Iterator:
        with zipfile.ZipFile(self.ARCHIVE) as archive:
            for label, (code, name) in enumerate(classes, first_class):
                for index, design in enumerate(DESIGNS):
                    file = f"{code}/{design}.webp"
                    image = images.upright_rgb(archive.read(file), f"{self.ARCHIVE}/{file}")
                    yield labelled_images.record(image, f"{code} {name}", label * len(DESIGNS) + index, file)

    def _read_classes(self) -> list[tuple[str, str]]:
        """Returns the code point and the name of every class, in the order of code points."""
        with zipfile.ZipFile(self.ARCHIVE) as archive:
            lines = archive.read("classes.tsv").decode().splitlines()
        return [tuple(line.split("\t", 1)) for line in lines]
