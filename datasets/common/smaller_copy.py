"""Copies of prepared data sets with smaller images."""

from __future__ import annotations

import concurrent.futures
import io
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image, JpegImagePlugin

from ccp_dml.datasets.common import labelled_images
from ccp_dml.datasets.common.images import DECODED_BYTES, JPEG_QUALITY
from ccp_dml.datasets.common.local_builder import LocalBuilder

_CHUNK = 256
# Pillow takes 4 bytes for a pixel; those of the rows that are resized first come on top.
_BYTES_TO_RESIZE = 8


def smaller_copy(
    original: Any, class_names: Sequence[str], shorter_side: int, data_dir: str | os.PathLike[str]
) -> SmallerCopy:
    """Returns the builder of a copy under the name of the original.

    Args:
        original: builder of a prepared data set of `labelled_images`.
        class_names: names of its classes.
        shorter_side: largest shorter side of the images of the copy in pixels, at least 1.
        data_dir: folder to write to.
    """
    # TFDS names a data set after its class, and reads its description beside the module of the class.
    attributes = {"name": original.name, "__module__": original.__module__}
    named = type("Copy", (SmallerCopy,), attributes, skip_registration=True)
    return named(original, class_names, shorter_side, data_dir)


class SmallerCopy(LocalBuilder, skip_registration=True):
    """Builds the copy; see `smaller_copy`. Labels and image ids stay, boxes are scaled with their images."""

    def __init__(
        self,
        original: Any,
        class_names: Sequence[str],
        shorter_side: int,
        data_dir: str | os.PathLike[str],
    ):
        """Reads no record."""
        self._original, self._class_names = original, list(class_names)
        self._shorter_side = shorter_side
        variant = original.builder_config.name if original.builder_config else "default"
        # A new version of the original gets a new copy.
        name = f"{variant}-{original.version}-side_{shorter_side}"
        super().__init__(
            config=tfds.core.BuilderConfig(name=name), data_dir=data_dir, file_format="array_record"
        )

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config  # The base class would warn that the class does not list it.

    def _info(self) -> tfds.core.DatasetInfo:
        found = self._original.info
        with_boxes = "box" in found.features
        return self.dataset_info_from_configs(
            features=labelled_images.features(self._class_names, with_boxes=with_boxes),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict(found.metadata) if found.metadata else None,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # Nothing is downloaded.
        return {split: self._generate_examples(split) for split in self._original.info.splits}

    def _generate_examples(self, split: str) -> Iterator:
        records = self._original.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for begin in range(0, len(records), _CHUNK):
                chunk = records.__getitems__(list(range(begin, min(begin + _CHUNK, len(records)))))
                for record, image in zip(chunk, pool.map(self._smaller, chunk)):
                    yield labelled_images.record(
                        image,
                        self._class_names[record["label"]],
                        int(record["image_id"]),
                        record["file"].decode(),
                        smaller_box(record["box"], record["image"], image) if "box" in record else None,
                    )

    def _smaller(self, record: dict[str, Any]) -> bytes:
        return smaller_image(record["image"], self._shorter_side)


def smaller_image(encoded: bytes, shorter_side: int) -> bytes:
    """Scales an image down to the given shorter side; returns smaller images unchanged.

    Resampling is bicubic over all covered pixels, and the longer side is rounded. JPEG stays JPEG, of quality
    95 with the same chroma subsampling; PNG stays PNG.
    """
    image = Image.open(io.BytesIO(encoded))
    least = min(image.size)
    if least <= shorter_side:
        return encoded
    size = tuple(round(side * shorter_side / least) for side in image.size)
    output = io.BytesIO()
    with DECODED_BYTES.take(_BYTES_TO_RESIZE * image.width * image.height):
        resized = image.resize(size, Image.Resampling.BICUBIC)
    options = {"quality": JPEG_QUALITY, "subsampling": _subsampling(image)} if image.format == "JPEG" else {}
    resized.save(output, image.format, **options)
    return output.getvalue()


def smaller_box(box: np.ndarray, encoded: bytes, smaller: bytes) -> tuple[int, int, int, int]:
    """Scales a box (top, left, height, width) with its image, rounded and inside; zeros stay zeros."""
    if smaller is encoded or not box[2]:
        return tuple(int(number) for number in box)
    old, new = (Image.open(io.BytesIO(image)).size[::-1] for image in (encoded, smaller))
    begins, sizes = [], []
    for begin, size, before, after in zip(box[:2], box[2:], old, new):
        first = min(round(int(begin) * after / before), after - 1)
        last = round((int(begin) + int(size)) * after / before)
        begins.append(first)
        sizes.append(max(last - first, 1))
    return *begins, *sizes


def _subsampling(image: Image.Image) -> int:
    # 4:2:0 replaces unusual subsamplings.
    found = JpegImagePlugin.get_sampling(image)
    return found if found >= 0 else 2
