"""The records that all data sets have in common, and the base of builders that read a user's files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import tensorflow_datasets as tfds

from ccp_dml.datasets.common import images
from ccp_dml.datasets.common.local_builder import LocalBuilder

_SKIPPED = "skipped_images"
_SKIPPED_SUFFIX = "-without_bad_images"


class Source(Protocol):
    """An image of the source."""

    @property
    def file(self) -> str:
        """File, relative to the source."""

    @property
    def label(self) -> str:
        """Name of the class."""

    @property
    def split(self) -> str:
        """Name of the split."""


SourceImage = TypeVar("SourceImage", bound=Source)
# Each image with its name in errors and the function that reads its bytes.
Readers = Iterable[tuple[SourceImage, str, Callable[[], bytes]]]


def features(class_names: Sequence[str] | None, *, with_boxes: bool = False) -> tfds.features.FeaturesDict:
    """Returns the features of a data set of labelled images.

    - `image`: encoded upright RGB image, JPEG or PNG, stored byte for byte. `tfds.decode.SkipDecoding()`
      returns these bytes; otherwise the image is decoded to uint8 [H, W, 3].
    - `label`: int64, index into the class names, which all splits share.
    - `image_id`: int64, unique over all splits, and the same whenever the same source is prepared.
    - `file`: file of the image in the source.
    - `box`: int32 [4], top, left, height and width of the object in pixels, inside the image; 0 if unknown.

    Args:
        class_names: names of all classes of all splits; None if preparation sets them.
        with_boxes: add the feature `box`.
    """
    found = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=class_names),
        "image_id": np.int64,
        "file": tfds.features.Text(),
    }
    if with_boxes:
        found["box"] = tfds.features.Tensor(shape=(4,), dtype=np.int32)
    return tfds.features.FeaturesDict(found)


def record(
    image: bytes, label: str, image_id: int, file: str, box: tuple[int, int, int, int] | None = None
) -> tuple[int, dict]:
    """Returns the key and the example that a builder yields for one image."""
    boxes = {} if box is None else {"box": np.array(box, np.int32)}
    return image_id, {"image": image, "label": label, "image_id": image_id, "file": file, **boxes}


class SourceBuilder(LocalBuilder, skip_registration=True):
    """Base of the builders that read image files of the user.

    Without `skip_bad_images`, an unusable image is an error. With it, unusable images are left out and listed
    in the metadata, and the data is prepared under another name.
    """

    def __init__(self, name: str, arguments: dict[str, Any], *, skip_bad_images: bool, **options: Any):
        """Opens no file.

        Args:
            name: name of the TFDS configuration, under which the data is prepared.
            arguments: all arguments of the subclass, which makes itself from them in another process.
            skip_bad_images: leave out unusable images.
            **options: options of every TFDS builder; `data_dir` is the folder of prepared data.
        """
        self._arguments, self._skip_bad_images = arguments, skip_bad_images
        config = tfds.core.BuilderConfig(name=name + _SKIPPED_SUFFIX if skip_bad_images else name)
        super().__init__(config=config, **options)

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config  # The base class would warn that the class does not list it.

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _dataset_info(
        self, class_names: Sequence[str] | None, *, with_boxes: bool = False
    ) -> tfds.core.DatasetInfo:
        # Records stay shuffled on the disk: to sort them, TFDS would hold a full split in memory.
        return self.dataset_info_from_configs(
            features=features(class_names, with_boxes=with_boxes),
            supervised_keys=("image", "label"),
            metadata=tfds.core.MetadataDict({_SKIPPED: []}) if self._skip_bad_images else None,
        )

    def _usable(
        self, files: Readers[SourceImage], later: Readers[SourceImage]
    ) -> Iterator[tuple[SourceImage, bytes]]:
        """Yields the usable images of a split with their encoded images.

        Args:
            files: the images of the split.
            later: the images of the following splits, which are only read for a complete error.

        Raises:
            ImageError: after the last image, naming all that are unusable, unless they are skipped; in any
                case if none is usable.
        """
        bad, any_usable = [], False
        for image, found in images.convert_all(files):
            if isinstance(found, images.ImageError):
                bad.append((image, found))
            else:
                any_usable = True
                yield image, found
        if bad and not self._skip_bad_images:
            bad += [pair for pair in images.convert_all(later) if isinstance(pair[1], images.ImageError)]
        if bad and not (self._skip_bad_images and any_usable):
            raise _one_error([error for _, error in bad])
        for image, error in bad:
            entry = {"file": image.file, "label": image.label, "split": image.split, "reason": str(error)}
            self.info.metadata[_SKIPPED].append(entry)


def _one_error(errors: Sequence[images.ImageError]) -> images.ImageError:
    if len(errors) == 1:
        return errors[0]
    reasons = "; ".join(str(error) for error in errors)
    return images.ImageError(f"{len(errors):,} images cannot be used: {reasons}")
