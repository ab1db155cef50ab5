"""In-shop Clothes Retrieval as published: the partition, the bounding boxes and the folder `img`."""

from __future__ import annotations

from ccp_dml.datasets.common.release import (
    GALLERY,
    QUERY,
    TRAIN,
    Listing,
    Release,
    Size,
    SourceImage,
    integers,
    rows,
)
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

_PARTITION = "list_eval_partition.txt"
_BOXES = "list_bbox_inshop.txt"
_TOPS = ("", "In-shop Clothes Retrieval Benchmark", "InShopClothesRetrievalBenchmark", "In-shop")


class Inshop(Release):
    """7,982 pieces of clothing; queries are searched in a gallery."""

    name = "inshop"
    page = "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html (after asking its authors)"
    to_get = f"Anno/{_BOXES}, Eval/{_PARTITION} and Img/img.zip"
    layouts = (
        Layout(
            needed=(_PARTITION, _BOXES, "img"),
            archives={"img.zip": ("img",)},
            folders=tuple(
                "/".join(filter(None, (top, part))) for top in _TOPS for part in ("", "Anno", "Eval", "Img")
            ),
        ),
    )
    sizes = {
        TRAIN: Size(3997, 25882),
        QUERY: Size(3985, 14218),
        GALLERY: Size(3985, 12612),
    }
    counted_in = dict.fromkeys((TRAIN, QUERY, GALLERY), (_PARTITION,))
    has_boxes = True
    box_image_size = (256, 256)

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of the partition, and their boxes by the name of the image."""
        texts = files.read([_PARTITION, _BOXES])
        boxes = {file: box for file, _, _, *box in rows(texts[_BOXES], _BOXES, 7, header=2)}
        images = []
        for file, label, split in rows(texts[_PARTITION], _PARTITION, 3, header=2):
            if split not in (TRAIN, QUERY, GALLERY):
                raise SourceError(f"{_PARTITION}: {file} is in {split!r}; expected train, query or gallery")
            if file not in boxes:
                raise SourceError(f"{_BOXES}: {file} of {_PARTITION} has no box")
            left, top, right, bottom = integers(boxes[file], _BOXES)
            images.append(SourceImage(file, label, split, (left, top, right, bottom)))
        return Listing(tuple(sorted({image.label for image in images})), tuple(images))


RELEASES = (Inshop(),)
