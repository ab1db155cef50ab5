"""A user's own folder of images."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from datasets import images, labelled_images
from datasets.image_folder.entries import Entry
from datasets.image_folder.layout import read_layout

_MAX_ERRORS_NAMED = 20
_CHUNK = 64


class Builder(tfds.core.GeneratorBasedBuilder):
    """Builds a data set from a folder of images; see `layout.read_layout` for what the folder may look like.

    The prepared data lie in a folder named after the source folder and its fingerprint, so that changed
    images, another manifest or another share of training classes are prepared afresh.
    The image id is the index of the image in the layout's order of splits, classes and files.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Initial release."}

    def __init__(self, *, source_dir: str | os.PathLike[str], train_fraction: float = 0.5, **options: Any):
        """Reads the layout of the folder; no image is opened.

        Args:
            source_dir: the folder of images.
            train_fraction: share of the sorted classes that train, above 0 and below 1.
            **options: as of every builder; `data_dir` is where prepared data go.

        Raises:
            LayoutError: if the folder or its manifest is not as it must be.
        """
        self._arguments = {"source_dir": source_dir, "train_fraction": train_fraction, **options}
        self._layout = read_layout(source_dir, train_fraction)
        folder_name = re.sub("[^A-Za-z0-9_-]+", "_", self._layout.source_dir.name) or "root"
        config = tfds.core.BuilderConfig(name=f"{folder_name}-{self._layout.fingerprint}")
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
            disable_shuffling=True,  # Records lie in the order of their image ids.
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self._layout.splits}

    def _generate_examples(self, split: str) -> Iterator:
        """Yields the images of a split, and then raises if any, of this or a later split, cannot be used."""
        layout = self._layout
        first = next(i for i, entry in enumerate(layout.entries) if entry.split == split)
        end = first + len(layout.splits[split])
        errors = []
        for image_id, image in enumerate(_convert_all(layout.source_dir, layout.entries[first:end]), first):
            entry = layout.entries[image_id]
            if isinstance(image, images.ImageError):
                errors.append(image)
            else:
                yield labelled_images.record(image, entry.label, image_id, entry.file)
        if errors:
            later = _convert_all(layout.source_dir, layout.entries[end:])
            errors += [image for image in later if isinstance(image, images.ImageError)]
            raise images.ImageError(_report(errors))


def _convert_all(root: pathlib.Path, entries: Sequence[Entry]) -> Iterator[bytes | images.ImageError]:
    # Threads, because Pillow decodes outside the interpreter's lock; in chunks, to hold few images in memory.
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(entries), _CHUNK):
            # Not in the threads: they share the filters.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                chunk = entries[start : start + _CHUNK]
                converted = list(pool.map(lambda entry: _convert(root / entry.file), chunk))
            yield from converted


def _convert(path: pathlib.Path) -> bytes | images.ImageError:
    try:
        return images.upright_rgb(path.read_bytes(), str(path))
    except images.ImageError as error:
        return error
    except OSError as error:
        return images.ImageError(f"{path}: cannot be read ({error.strerror})")


def _report(errors: Sequence[images.ImageError]) -> str:
    if len(errors) == 1:
        return str(errors[0])
    named = [str(error) for error in errors[:_MAX_ERRORS_NAMED]]
    if len(errors) > _MAX_ERRORS_NAMED:
        named.append(f"and {len(errors) - _MAX_ERRORS_NAMED} more")
    return f"{len(errors)} images cannot be used: " + "; ".join(named)
