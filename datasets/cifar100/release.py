"""CIFAR-100 as published in its binary version: split by the classes of CIFAR-FS, or as published."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

from ccp_dml.datasets.cifar100.collage import Cifar100Collage
from ccp_dml.datasets.cifar100.records import CLASSES, PublishedCifar100, read
from ccp_dml.datasets.common import cifar_files
from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Size, SourceImage
from ccp_dml.datasets.common.source_files import SourceFiles

# CIFAR-FS (Bertinetto et al., Meta-learning with differentiable closed-form solvers, ICLR 2019).
VALIDATION_CLASSES = (
    "beaver",
    "beetle",
    "butterfly",
    "camel",
    "cattle",
    "crab",
    "crocodile",
    "flatfish",
    "lamp",
    "maple_tree",
    "motorcycle",
    "otter",
    "sea",
    "shark",
    "television",
    "tractor",
)
TEST_CLASSES = (
    "baby",
    "bed",
    "bicycle",
    "chimpanzee",
    "fox",
    "leopard",
    "man",
    "pickup_truck",
    "plain",
    "poppy",
    "rocket",
    "rose",
    "snail",
    "sweet_pepper",
    "table",
    "telephone",
    "wardrobe",
    "whale",
    "woman",
    "worm",
)


class Cifar100(PublishedCifar100):
    """All images, split by class: the training and validation classes of CIFAR-FS, and its test classes."""

    sizes = {TRAIN: Size(80, 48000), TEST: Size(20, 12000)}

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of the records."""
        records = read(files)
        images = [
            SourceImage(file, records.fine_names[fine], self._split(file, records.fine_names[fine]))
            for file, fine in zip(records.image_names, records.fine.tolist())
        ]
        held_out = (*VALIDATION_CLASSES, *TEST_CLASSES)
        training = [name for name in records.fine_names if name not in held_out]
        return Listing((*training, *held_out), tuple(images))

    def open_images(
        self, files: SourceFiles, images: Sequence[SourceImage]
    ) -> Iterator[tuple[SourceImage, Callable[[], bytes]]]:
        """Yields images with functions that encode their pixels."""
        records = read(files)
        rows = records.rows()
        for image in images:
            yield image, functools.partial(cifar_files.image_file, records.pixels[rows[image.file]])

    def _split(self, file: str, label: str) -> str:
        return TEST if label in TEST_CLASSES else TRAIN


class Cifar100Closed(Cifar100):
    """The published split, in which training and test images have the same classes."""

    variant = "closed"
    sizes = {TRAIN: Size(CLASSES, 50000), TEST: Size(CLASSES, 10000)}

    def _split(self, file: str, label: str) -> str:
        return TEST if file.startswith("test.bin") else TRAIN


RELEASES = (Cifar100(), Cifar100Closed(), Cifar100Collage())
