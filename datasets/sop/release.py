"""Stanford Online Products as published: two texts and a folder of images for each category."""

from __future__ import annotations

from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release, Size, SourceImage, rows
from ccp_dml.datasets.common.source_files import Layout, SourceFiles

_TEXTS = {TRAIN: "Ebay_train.txt", TEST: "Ebay_test.txt"}
_NEEDED = (*_TEXTS.values(), "bicycle_final")


class Sop(Release):
    """22,634 products of 12 categories that were on sale on eBay."""

    name = "sop"
    page = "https://cvgl.stanford.edu/projects/lifted_struct/"
    to_get = "Stanford_Online_Products.zip"
    layouts = (
        Layout(
            needed=_NEEDED,
            archives={"Stanford_Online_Products.zip": _NEEDED},
            folders=("", "Stanford_Online_Products"),
        ),
    )
    sizes = {TRAIN: Size(11318, 59551), TEST: Size(11316, 60502)}
    counted_in = {split: (text,) for split, text in _TEXTS.items()}
    download_url = "ftp://cs.stanford.edu/cs/cvgl/Stanford_Online_Products.zip"

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of both texts. A class is named after its category and number."""
        texts = files.read(list(_TEXTS.values()))
        images = []
        for split, text in _TEXTS.items():
            for _, number, _, file in rows(texts[text], text, 4, header=1):
                category = file.split("/")[0].removesuffix("_final")
                images.append(SourceImage(file, f"{category} {number}", split))
        return Listing(tuple(dict.fromkeys(image.label for image in images)), tuple(images))


RELEASES = (Sop(),)
