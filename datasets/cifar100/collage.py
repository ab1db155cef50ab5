"""Collages of CIFAR-100: squares of 2 x 2 tiles, one object and three backgrounds."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ccp_dml.datasets.cifar100.records import PublishedCifar100, Records, read
from ccp_dml.datasets.common import cifar_files
from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Size, SourceImage
from ccp_dml.datasets.common.source_files import SourceFiles

BACKGROUNDS = ("flowers", "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "trees")
_TRAINING_FINE_CLASSES = 3
_SEED = 0


class Cifar100Collage(PublishedCifar100):
    """16 coarse classes: their first three fine classes for training, the other two for testing.

    The four coarse classes of landscapes and plants are the backgrounds, and are split in the same way. Each
    image is the object of one collage. Its place and the backgrounds are drawn at random with a fixed seed;
    no background is drawn a second time before all were.
    """

    variant = "collage"
    sizes = {TRAIN: Size(16, 28800), TEST: Size(16, 19200)}

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images that are objects, in the order of the records."""
        records = read(files)
        is_training = _is_training(records)
        images = [
            SourceImage(file, records.coarse_names[coarse], TRAIN if trains else TEST)
            for file, coarse, trains in zip(
                records.image_names, records.coarse.tolist(), is_training.tolist()
            )
            if records.coarse_names[coarse] not in BACKGROUNDS
        ]
        return Listing(tuple(name for name in records.coarse_names if name not in BACKGROUNDS), tuple(images))

    def open_images(
        self, files: SourceFiles, images: Sequence[SourceImage]
    ) -> Iterator[tuple[SourceImage, Callable[[], bytes]]]:
        """Yields images, all of the same split, with functions that make their collages."""
        records = read(files)
        is_background = np.isin(np.array(records.coarse_names)[records.coarse], BACKGROUNDS)
        is_wanted = _is_training(records) == (images[0].split == TRAIN)
        backgrounds = np.flatnonzero(is_background & is_wanted)
        rows = records.rows()
        for image, (place, tiles) in zip(images, _draws(len(images), backgrounds)):
            order = np.insert(tiles, place, rows[image.file])
            yield image, functools.partial(_collage, records.pixels, order)


def _is_training(records: Records) -> npt.NDArray[np.bool_]:
    """Returns True for each image of the first fine classes of its coarse class, bool [N]."""
    pairs = np.unique(np.stack([records.coarse, records.fine], 1), axis=0)
    fine_classes = [pairs[pairs[:, 0] == coarse, 1] for coarse in np.unique(pairs[:, 0])]
    return np.isin(records.fine, np.concatenate([of[:_TRAINING_FINE_CLASSES] for of in fine_classes]))


def _draws(count: int, backgrounds: npt.NDArray[Any]) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yields the place of the object (0..3) and the rows of the three backgrounds of each collage."""
    generator = np.random.default_rng(_SEED)
    places = generator.integers(0, 4, count)
    rest = np.zeros(0, np.int64)
    for place in places:
        if len(rest) < 3:
            rest = generator.permutation(backgrounds)
        tiles, rest = rest[:3], rest[3:]
        yield int(place), tiles


def _collage(pixels: cifar_files.Pixels, rows: npt.NDArray[Any]) -> bytes:
    top, bottom = (np.concatenate(list(pixels[pair]), axis=1) for pair in (rows[:2], rows[2:]))
    return cifar_files.image_file(np.concatenate([top, bottom]))
