"""A user's own folder of images."""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from datasets import conversion, labelled_images, skipped_metadata
from datasets.image_folder.entries import Entry
from datasets.image_folder.layout import read_layout
from datasets.regular_files import read_file


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds a data set from a folder of images; see `layout.read_layout` for what the folder may look like.

    The prepared data lie in a folder named after the source folder and its fingerprint, so that changed
    images, another manifest or another share of training classes are prepared afresh.
    The image id is the index of the image in the layout's order of splits, classes and files.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}

    def __init__(
        self,
        *,
        source_dir: str | os.PathLike[str],
        train_fraction: float = 0.5,
        skip_bad_images: bool = False,
        **options: Any,
    ):
        """Reads the layout of the folder; no image is opened.

        Args:
            source_dir: the folder of images.
            train_fraction: share of the sorted classes that train, above 0 and below 1.
            skip_bad_images: whether images that cannot be used are left out, and noted in the metadata; data
                prepared so are kept apart. Otherwise they are an error.
            **options: as of every builder; `data_dir` is where prepared data go.

        Raises:
            LayoutError: if the folder or its manifest is not as it must be.
        """
        self._arguments = {
            "source_dir": source_dir,
            "train_fraction": train_fraction,
            "skip_bad_images": skip_bad_images,
            **options,
        }
        self._skip = skip_bad_images
        self._layout = read_layout(source_dir, train_fraction)
        folder_name = re.sub("[^A-Za-z0-9_-]+", "_", self._layout.source_dir.name) or "root"
        name = f"{folder_name}-{self._layout.fingerprint}"
        config = tfds.core.BuilderConfig(name=name + skipped_metadata.SUFFIX if skip_bad_images else name)
        super().__init__(config=config, **options)

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return (
            builder_config  # As the base class does, but without a warning that the class does not list it.
        )

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=labelled_images.features(self._layout.class_names),
            supervised_keys=("image", "label"),
            # Records are shuffled on disk, in parts: to sort them, TFDS would hold a whole split in memory.
            metadata=skipped_metadata.new_metadata() if self._skip else None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self._layout.splits}

    def _generate_examples(self, split: str) -> Iterator:
        """Yields the images of a split; raises at its end if any, of this or a later one, cannot be used."""
        layout = self._layout
        first = next(i for i, entry in enumerate(layout.entries) if entry.split == split)
        end = first + len(layout.splits[split])
        numbered = list(enumerate(layout.entries))
        root, skipped = layout.source_dir, [] if self._skip else None
        kept = conversion.usable(_readers(root, numbered[first:end]), _readers(root, numbered[end:]), skipped)
        for (image_id, entry), image in kept:
            yield labelled_images.record(image, entry.label, image_id, entry.file)
        for (_, entry), error in skipped or ():
            skipped_metadata.note(self.info.metadata, entry, error)


def _readers(
    root: pathlib.Path, entries: Sequence[tuple[int, Entry]]
) -> conversion.Readers[tuple[int, Entry]]:
    for image_id, entry in entries:
        path = root / entry.file
        yield (image_id, entry), str(path), functools.partial(read_file, path)
