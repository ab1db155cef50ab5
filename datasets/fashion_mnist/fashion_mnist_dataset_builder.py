"""Fashion-MNIST: 70,000 small gray pictures of ten kinds of clothing."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds
from PIL import Image

from ccp_dml.datasets.common import labelled_images
from ccp_dml.datasets.common.local_builder import LocalBuilder
from ccp_dml.datasets.fashion_mnist import source


class Builder(LocalBuilder):
    """Builds the data set from its four official files.

    A closed-set task: both splits have the same ten classes. The image id is the place of the image in the
    training file; test images are counted on from there.
    """

    def __init__(self, *, source_dir: str | os.PathLike[str] | None = None, **options: Any):
        """Opens no file.

        Args:
            source_dir: folder of the four files; None or "" for the folder of the Debian package.
            **options: options of every TFDS builder; `data_dir` is the folder of prepared data.
        """
        self._arguments = {"source_dir": source_dir, **options}
        self._source_dir = source_dir
        super().__init__(**options)

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=labelled_images.features(source.CLASS_NAMES),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # Keeps records in the order of their image ids.
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        folder = source.find(self._source_dir)
        train, test = (source.read_split(folder, split) for split in ("train", "test"))
        return {
            "train": self._generate_examples("train", train, first_id=0),
            "test": self._generate_examples("test", test, first_id=len(train[1])),
        }

    def _generate_examples(
        self, split: str, pictures: tuple[source.Bytes, source.Bytes], first_id: int
    ) -> Iterator:
        for index, (pixels, label) in enumerate(zip(*pictures, strict=True)):
            name = source.CLASS_NAMES[label]
            yield labelled_images.record(_png(pixels), name, first_id + index, f"{split}/{index}")


def _png(pixels: source.Bytes) -> bytes:
    output = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(output, "png")
    return output.getvalue()
