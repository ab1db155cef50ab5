"""The base of the builders of published data sets."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from ccp_dml.datasets.common.labelled_images import Readers, SourceBuilder, record
from ccp_dml.datasets.common.release import Listing, Release, SourceImage
from ccp_dml.datasets.common.source_files import SourceError, SourceFiles


def builder_configs(releases: Sequence[Release]) -> list[tfds.core.BuilderConfig]:
    """Returns one configuration for each variant of a data set."""
    return [tfds.core.BuilderConfig(name=release.variant) for release in releases]


class OfficialBuilder(SourceBuilder, skip_registration=True):
    """Base of the builders of published data sets, which name their releases and configurations.

    The image id is the place of the image in the listing of the release, over all splits. Records are in
    another order, which is the same whenever the same source is prepared. Prepared data can be opened without
    the source.
    """

    RELEASES: ClassVar[tuple[Release, ...]] = ()

    def __init__(
        self,
        *,
        source_dir: str | os.PathLike[str] | None = None,
        config: str | None = None,
        check_counts: bool = True,
        skip_bad_images: bool = False,
        **options: Any,
    ):
        """Opens no file of the source, unless the prepared data may differ from the published data set.

        Args:
            source_dir: the folder that holds the files of the data set or its archives, or one archive; None
                if the data is prepared, or is to be downloaded.
            config: variant of the data set; None for the first.
            check_counts: require the published numbers of classes and images. Otherwise the name of the
                prepared data includes the fingerprint of the source.
            skip_bad_images: leave out unusable images, likewise under a name with the fingerprint.
            **options: options of every TFDS builder; `data_dir` is the folder of prepared data.

        Raises:
            SourceError: if the variant is unknown, or the source is needed for its fingerprint and missing.
        """
        self._release = self._choose(config)
        self._source_dir = None if source_dir is None else pathlib.Path(source_dir)
        self._check_counts = check_counts
        name = self._release.variant
        if skip_bad_images or not check_counts:
            if source_dir is None:
                raise SourceError(
                    f"{self._release.name}: a source is needed where counts are not checked or images skipped"
                )
            name += f"-{self._release.find(source_dir).fingerprint}"
        arguments = {
            "source_dir": source_dir,
            "config": config,
            "check_counts": check_counts,
            "skip_bad_images": skip_bad_images,
            **options,
        }
        super().__init__(name, arguments, skip_bad_images=skip_bad_images, **options)

    @classmethod
    def _choose(cls, variant: str | None) -> Release:
        for release in cls.RELEASES:
            if variant in (None, release.variant):
                return release
        expected = ", ".join(release.variant for release in cls.RELEASES)
        raise SourceError(f"{cls.name} has no variant {variant}; expected one of: {expected}")

    def _info(self) -> tfds.core.DatasetInfo:
        # Class names come with the source, or with the prepared data.
        return self._dataset_info(None, with_boxes=self._release.has_boxes)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        release = self._release
        files = release.find(self._source_dir or self._download(dl_manager))
        listing = release.listing(files)
        if self._check_counts:
            release.check_sizes(listing, files)
        self.info.features["label"].names = list(listing.class_names)
        return {split: self._generate_examples(files, listing, split) for split in release.sizes}

    def _download(self, dl_manager: tfds.download.DownloadManager) -> pathlib.Path:
        release = self._release
        if release.download_url is None:
            raise SourceError(f"{release.name} cannot be downloaded; {release.advice('a folder of yours')}")
        cause: Exception
        try:
            return pathlib.Path(dl_manager.download(release.download_url))
        except NonMatchingChecksumError as error:
            problem, cause = "is not the published file, going by its checksum", error
        except Exception as error:  # Several libraries raise errors of their own.
            problem, cause = f"could not be downloaded ({str(error).splitlines()[0]})", error
        raise SourceError(
            f"{release.download_url} {problem}; {release.advice('a folder of yours')}"
        ) from cause

    def _generate_examples(self, files: SourceFiles, listing: Listing, split: str) -> Iterator:
        ids = {image: place for place, image in enumerate(listing.images)}
        splits = list(self._release.sizes)
        later = splits[splits.index(split) + 1 :]
        usable = self._usable(
            self._readers(files, [image for image in ids if image.split == split]),
            self._readers(files, [image for image in ids if image.split in later]),
        )
        for image, encoded in usable:
            box = _box(image, encoded, self._release.box_image_size) if self._release.has_boxes else None
            yield record(encoded, image.label, ids[image], image.file, box)

    def _readers(self, files: SourceFiles, chosen: Sequence[SourceImage]) -> Readers[SourceImage]:
        for image, reader in self._release.open_images(files, chosen) if chosen else ():
            yield image, files.describe(image.file), reader


def _box(image: SourceImage, encoded: bytes, expected: tuple[int, int] | None) -> tuple[int, int, int, int]:
    """Returns the top, left, height and width of an image's box, cropped to the image.

    Args:
        image: the image with its published box.
        encoded: the encoded image.
        expected: width and height of the image that the box is valid for; None for any.

    Returns:
        The box in pixels; zeros if the image has none or is of another size than expected.

    Raises:
        SourceError: if the box has no area inside the image.
    """
    width, height = Image.open(io.BytesIO(encoded)).size
    if image.box is None or expected not in (None, (width, height)):
        return 0, 0, 0, 0
    left, top = (max(0, edge) for edge in image.box[:2])
    right, bottom = min(width, image.box[2]), min(height, image.box[3])
    if left >= right or top >= bottom:
        raise SourceError(f"{image.file}: the box {image.box} has no area in an image of {width} x {height}")
    return top, left, bottom - top, right - left
