"""ImageNet (ILSVRC 2012) as published, unpacked to a folder of images for each class."""

from __future__ import annotations

import os

from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release, Size, SourceImage
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

_FOLDER = "train"


class Imagenet(Release):
    """The published training images; the first 500 classes by WordNet id train, the other 500 test."""

    name = "imagenet"
    page = "https://image-net.org/challenges/LSVRC/2012/2012-downloads.php (after registering)"
    to_get = (
        "ILSVRC2012_img_train.tar, unpacked, with the archive of each class, to train/n01440764/ and so on,"
    )
    layouts = (Layout(needed=(_FOLDER,), folders=("", "ILSVRC/Data/CLS-LOC", "ILSVRC2012", "imagenet")),)
    sizes = {TRAIN: Size(500, None), TEST: Size(500, None)}
    total_images = 1_281_167
    counted_in = dict.fromkeys((TRAIN, TEST), (f"the folder {_FOLDER}",))

    def advice(self, folder: str | os.PathLike[str]) -> str:
        """Returns a clause that says what to get, from where, and where to put it."""
        return f"get {self.to_get} from {self.page} and put the folder {_FOLDER} into {folder}"

    def listing(self, files: SourceFiles) -> Listing:
        """Lists the folders of the classes and their images, sorted by name."""
        top = files.locate(_FOLDER)
        if top is None or not top.is_dir():
            raise SourceError(f"{top} is not a folder of classes")
        names = sorted(folder.name for folder in os.scandir(top) if folder.is_dir())
        images = []
        for label, name in enumerate(names):
            split = TRAIN if label < len(names) // 2 else TEST
            found = sorted(file.name for file in os.scandir(top / name) if file.name.endswith(".JPEG"))
            images += [SourceImage(f"{_FOLDER}/{name}/{file}", name, split) for file in found]
        return Listing(tuple(names), tuple(images))


RELEASES = (Imagenet(),)
