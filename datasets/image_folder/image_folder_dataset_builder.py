"""A user's own folder of images."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds

from ccp_dml.datasets.common.labelled_images import Readers, SourceBuilder, record
from ccp_dml.datasets.common.source_files import read_file
from ccp_dml.datasets.image_folder.entries import Entry
from ccp_dml.datasets.image_folder.layout import read_layout


class Builder(SourceBuilder):
    """Builds a data set from a folder of images; see `layout.read_layout` for the layouts of the folder.

    The prepared data is named after the folder and its fingerprint, so changed images, another manifest or
    another share of training classes are prepared again. The image id is the place of the image in the
    layout's order of splits, classes and files.
    """

    def __init__(
        self,
        *,
        source_dir: str | os.PathLike[str],
        train_fraction: float = 0.5,
        class_order_seed: int | None = None,
        skip_bad_images: bool = False,
        **options: Any,
    ):
        """Reads the layout of the folder; opens no image.

        Args:
            source_dir: the folder of images.
            train_fraction: share of the classes for training, 0 to 1.
            class_order_seed: seed of a random order of the classes; None: the order of their names.
            skip_bad_images: leave out unusable images; the data is prepared under another name.
            **options: options of every TFDS builder; `data_dir` is the folder of prepared data.

        Raises:
            LayoutError: if the folder or its manifest cannot be used.
        """
        self._layout = read_layout(source_dir, train_fraction, class_order_seed)
        folder_name = re.sub("[^A-Za-z0-9_-]+", "_", self._layout.source_dir.name) or "root"
        arguments = {
            "source_dir": source_dir,
            "train_fraction": train_fraction,
            "class_order_seed": class_order_seed,
            "skip_bad_images": skip_bad_images,
            **options,
        }
        name = f"{folder_name}-{self._layout.fingerprint}"
        super().__init__(name, arguments, skip_bad_images=skip_bad_images, **options)

    @property
    def passed_over(self) -> str | None:
        """Description of the files of the folder that are no images; None if there are none."""
        return self._layout.passed_over_in_words()

    def _info(self) -> tfds.core.DatasetInfo:
        return self._dataset_info(self._layout.class_names)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self._layout.splits}

    def _generate_examples(self, split: str) -> Iterator:
        ids = {entry: place for place, entry in enumerate(self._layout.entries)}
        splits = list(self._layout.splits)
        later = splits[splits.index(split) + 1 :]
        usable = self._usable(
            self._readers([entry for entry in ids if entry.split == split]),
            self._readers([entry for entry in ids if entry.split in later]),
        )
        for entry, image in usable:
            yield record(image, entry.label, ids[entry], entry.file)

    def _readers(self, entries: Sequence[Entry]) -> Readers[Entry]:
        for entry in entries:
            path = self._layout.source_dir / entry.file
            yield entry, str(path), functools.partial(read_file, path)
