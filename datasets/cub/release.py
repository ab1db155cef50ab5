"""CUB-200-2011 as published: four texts and the folder `images`."""

from __future__ import annotations

from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release, Size, SourceImage, integers, rows
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

_TEXTS = ("classes.txt", "images.txt", "image_class_labels.txt", "bounding_boxes.txt")


class Cub(Release):
    """200 species of birds: the first half of the classes for training, the second half for testing."""

    name = "cub"
    page = "https://data.caltech.edu/records/65de6-vp158"
    to_get = "CUB_200_2011.tgz"
    layouts = (
        Layout(
            needed=(*_TEXTS, "images"),
            archives={"CUB_200_2011.tgz": (*_TEXTS, "images")},
            folders=("", "CUB_200_2011"),
        ),
    )
    sizes = {TRAIN: Size(100, 5864), TEST: Size(100, 5924)}
    counted_in = dict.fromkeys((TRAIN, TEST), ("images.txt",))
    has_boxes = True
    download_url = "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1"

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of `images.txt`, and their classes and boxes from the other texts."""
        texts = files.read(_TEXTS)
        names = dict(rows(texts["classes.txt"], "classes.txt", 2))
        labels = dict(rows(texts["image_class_labels.txt"], "image_class_labels.txt", 2))
        boxes = {image: box for image, *box in rows(texts["bounding_boxes.txt"], "bounding_boxes.txt", 5)}
        numbers = sorted(names, key=lambda number: integers([number], "classes.txt"))
        training = set(numbers[: len(numbers) // 2])
        images = []
        for image, file in rows(texts["images.txt"], "images.txt", 2):
            label = labels.get(image)
            if label not in names:
                raise SourceError(f"image_class_labels.txt: image {image} of images.txt has no known class")
            if image not in boxes:
                raise SourceError(f"bounding_boxes.txt: image {image} of images.txt has no box")
            left, top, width, height = integers(boxes[image], "bounding_boxes.txt")
            split = TRAIN if label in training else TEST
            box = (left, top, left + width, top + height)
            images.append(SourceImage(f"images/{file}", names[label], split, box))
        return Listing(tuple(names[number] for number in numbers), tuple(images))


RELEASES = (Cub(),)
