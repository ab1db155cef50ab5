"""mini-ImageNet: images of ImageNet in the three lists of Ravi and Larochelle."""

from __future__ import annotations

import os

from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release, Size, SourceImage
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

_LISTS = {"train": TRAIN, "val": TRAIN, "test": TEST}
_SUFFIXES = (".jpg", ".JPEG", ".png")


class MiniImagenet(Release):
    """100 classes: 80 for training, the last 16 from the list `val`, and 20 for testing.

    The lists are `train.csv`, `val.csv` and `test.csv` (columns `filename,label`) beside the folder `images`,
    or `train.txt`, `val.txt` and `test.txt` in `splits/ravi-larochelle` (one class per line) beside the
    folder `data`, which has a folder of images for each class.
    """

    name = "mini_imagenet"
    page = "https://github.com/twitter-research/meta-learning-lstm (its lists; the images are of ImageNet)"
    to_get = "train.csv, val.csv and test.csv, with the listed images in the folder images,"
    layouts = (
        Layout(needed=(*(f"{name}.csv" for name in _LISTS), "images"), folders=("", "miniImagenet")),
        Layout(
            needed=(*(f"splits/ravi-larochelle/{name}.txt" for name in _LISTS), "data"),
            folders=("", "miniimagenet"),
        ),
    )
    sizes = {TRAIN: Size(80, 48000), TEST: Size(20, 12000)}
    counted_in = {
        TRAIN: ("train.csv", "val.csv", *(f"splits/ravi-larochelle/{name}.txt" for name in ("train", "val"))),
        TEST: ("test.csv", "splits/ravi-larochelle/test.txt"),
    }

    def advice(self, folder: str | os.PathLike[str]) -> str:
        """Returns a clause that says what to get, from where, and where to put it."""
        return f"get {self.to_get} from {self.page} and put all into {folder}"

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of the lists."""
        by_class = files.layout.needed[-1] == "data"
        images: list[SourceImage] = []
        for text, split in zip(files.layout.needed, _LISTS.values()):
            lines = [line.strip() for line in files.read([text])[text].decode().splitlines() if line.strip()]
            if by_class:
                images += [image for label in lines for image in _of_class(files, label, split)]
            else:
                images += [_of_line(line, text, split) for line in lines[1:]]
        return Listing(tuple(dict.fromkeys(image.label for image in images)), tuple(images))


def _of_line(line: str, text: str, split: str) -> SourceImage:
    file, _, label = line.partition(",")
    if not label:
        raise SourceError(f"{text}: the line {line!r} has no class; expected filename,label")
    return SourceImage(f"images/{file}", label, split)


def _of_class(files: SourceFiles, label: str, split: str) -> list[SourceImage]:
    folder = files.locate(f"data/{label}")
    if folder is None:
        raise SourceError(f"the folder data/{label} of a listed class does not exist")
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(_SUFFIXES))
    return [SourceImage(f"data/{label}/{name}", label, split) for name in names]


RELEASES = (MiniImagenet(),)
