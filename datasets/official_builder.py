"""Builds a data set from the files that its authors publish."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from datasets import conversion, labelled_images, skipped_metadata
from datasets.release import Listing, Release, SourceImage
from datasets.source_files import SourceError, SourceFiles


def builder_configs(releases: Sequence[Release]) -> list[tfds.core.BuilderConfig]:
    """Returns one configuration for each variant of a data set."""
    return [tfds.core.BuilderConfig(name=release.variant) for release in releases]


class OfficialBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders of published data sets; one of them names its releases and configurations.

    The image id is the place of the image in the listing of the release, over all splits; records are in
    another order, which is the same whenever the same source is prepared. Prepared data do not need the
    source again.
    """

    VERSION = tfds.core.Version(Release.VERSION)
    RELEASE_NOTES: ClassVar[dict[str, str]] = {Release.VERSION: "Initial release."}

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
        """Opens no file of the source, unless less than the published data set is to be prepared.

        Args:
            source_dir: the folder that holds the files of the data set or its archives, or one archive; None:
                they are prepared, or are to be downloaded.
            config: variant of the data set; None: the first.
            check_counts: whether the numbers of classes and images must be the published ones. Data prepared
                without are kept apart, under the fingerprint of their source.
            skip_bad_images: whether images that cannot be used are left out, and noted in the metadata; data
                prepared so are kept apart likewise. Otherwise they are an error.
            **options: as of every builder; `data_dir` is where prepared data go.

        Raises:
            SourceError: if there is no such variant, or the source of data that are kept apart is not there.
        """
        self._arguments = {
            "source_dir": source_dir,
            "config": config,
            "check_counts": check_counts,
            "skip_bad_images": skip_bad_images,
            **options,
        }
        self._release = self._choose(config)
        self._source_dir = None if source_dir is None else pathlib.Path(source_dir)
        self._check_counts, self._skip = check_counts, skip_bad_images
        name = self._release.variant
        if skip_bad_images or not check_counts:
            if source_dir is None:
                raise SourceError(
                    f"{self._release.name}: a source is needed where counts are not checked or images skipped"
                )
            name += f"-{self._release.find(source_dir).fingerprint}"
        if skip_bad_images:
            name += skipped_metadata.SUFFIX
        super().__init__(config=tfds.core.BuilderConfig(name=name), **options)

    @classmethod
    def _choose(cls, variant: str | None) -> Release:
        for release in cls.RELEASES:
            if variant in (None, release.variant):
                return release
        expected = ", ".join(release.variant for release in cls.RELEASES)
        raise SourceError(f"{cls.name} has no variant {variant}; expected one of: {expected}")

    def _create_builder_config(self, builder_config: Any, version: Any) -> Any:
        del version
        return builder_config  # As the base class does, but without a warning about unlisted ones.

    def __getstate__(self) -> dict[str, Any]:
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            # The names of the classes come with the source, or with the prepared data.
            features=labelled_images.features(None, with_boxes=self._release.has_boxes),
            supervised_keys=("image", "label"),
            # Records are shuffled on disk, in parts: to sort them, TFDS would hold a whole split in memory.
            metadata=skipped_metadata.new_metadata() if self._skip else None,
        )

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
        except Exception as error:  # Of several libraries.
            problem, cause = f"could not be downloaded ({str(error).splitlines()[0]})", error
        raise SourceError(
            f"{release.download_url} {problem}; {release.advice('a folder of yours')}"
        ) from cause

    def _generate_examples(self, files: SourceFiles, listing: Listing, split: str) -> Iterator:
        """Yields the images of a split; raises at its end if any, of this or a later one, cannot be used."""
        ids = {image: place for place, image in enumerate(listing.images)}
        splits = list(self._release.sizes)
        later = splits[splits.index(split) + 1 :]
        skipped = [] if self._skip else None
        kept = conversion.usable(
            self._readers(files, [image for image in ids if image.split == split]),
            self._readers(files, [image for image in ids if image.split in later]),
            skipped,
        )
        for image, encoded in kept:
            box = _box(image, encoded, self._release.box_image_size) if self._release.has_boxes else None
            yield labelled_images.record(encoded, image.label, ids[image], image.file, box)
        for image, error in skipped or ():
            skipped_metadata.note(self.info.metadata, image, error)

    def _readers(self, files: SourceFiles, chosen: Sequence[SourceImage]) -> conversion.Readers[SourceImage]:
        for image, reader in self._release.open_images(files, chosen) if chosen else ():
            yield image, files.describe(image.file), reader


def _box(image: SourceImage, encoded: bytes, expected: tuple[int, int] | None) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of an image's box inside the image; all 0 where it has none.

    Args:
        image: the image with its published box.
        encoded: the image.
        expected: width and height that the box is for; None: any. In another image it means nothing.

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
