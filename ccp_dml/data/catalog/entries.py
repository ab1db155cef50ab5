"""What there is to know of each data set before it is opened."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccp_dml.data.catalog import finding
from ccp_dml.data.catalog.source import Source


@dataclass(frozen=True)
class Entry:
    """A data set.

    Attributes:
        folder: the folder of its builder in `datasets`.
        find: finds its source, or raises `UserError`; returns the number of training classes.
        options: the fields of `Source` that its builder takes.
        variant: the TFDS configuration of its builder, a variant of the classes; None: it is not one of the
            published data sets, which alone have some.
    """

    folder: str
    find: Callable[[Source], int]
    options: tuple[str, ...] = ()
    variant: str | None = None

    @property
    def release(self) -> Any:
        """What is published, a `Release` of `datasets`; None if it is not one of the published data sets."""
        return None if self.variant is None else finding.release_of(self.folder, self.variant)

    def builder_options(self, source: Source) -> dict[str, Any]:
        """The arguments of the builder that `source` gives."""
        names = {"data_dir": "source_dir"}  # To a builder, data_dir is where prepared data go.
        options = {names.get(name, name): getattr(source, name) for name in self.options}
        return options if self.variant is None else {"config": self.variant, **options}


def names() -> tuple[str, ...]:
    """Names that `--dataset` accepts."""
    return tuple(ENTRIES)


def is_published(name: str) -> bool:
    """Whether it is one of the published data sets, whose numbers of classes and images can be checked."""
    return name in ENTRIES and ENTRIES[name].variant is not None


def _published(folder: str, variant: str = "zero_shot") -> Entry:
    find = functools.partial(finding.published, folder=folder, variant=variant)
    return Entry(folder, find, ("data_dir", "check_counts", "skip_bad_images"), variant)


ENTRIES = {
    "emoji": Entry("emoji", finding.emoji),
    "image_folder": Entry(
        "image_folder", finding.image_folder, ("data_dir", "train_fraction", "skip_bad_images")
    ),
    "fashion_mnist": Entry("fashion_mnist", finding.fashion_mnist, ("data_dir",)),
    "cub": _published("cub"),
    "cars196": _published("cars196"),
    "sop": _published("sop"),
    "inshop": _published("inshop"),
    "cifar10": _published("cifar10"),
    "cifar10_closed": _published("cifar10", "closed"),
    "cifar100": _published("cifar100"),
    "cifar100_closed": _published("cifar100", "closed"),
    "cifar100_collage": _published("cifar100", "collage"),
    "imagenet": _published("imagenet"),
    "mini_imagenet": _published("mini_imagenet"),
}
