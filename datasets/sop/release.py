"""Stanford Online Products as published: `Ebay_train.txt`, `Ebay_test.txt` and a folder for each category."""

from __future__ import annotations

from datasets.release import TEST, TRAIN, Listing, Release, Size, SourceImage, rows
from datasets.source_files import Layout, SourceFiles

_TEXTS = {TRAIN: "Ebay_train.txt", TEST: "Ebay_test.txt"}
_NEEDED = (*_TEXTS.values(), "bicycle_final")


class Sop(Release):
    """22,634 products that were on sale on eBay, of 12 categories."""

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
        """Reads both texts, in their order. A class is called by its category and its number."""
        texts = files.read(list(_TEXTS.values()))
        images = []
        for split, text in _TEXTS.items():
            for _, number, _, file in rows(texts[text], text, 4, header=1):
                category = file.split("/")[0].removesuffix("_final")
                images.append(SourceImage(file, f"{category} {number}", split))
        return Listing(tuple(dict.fromkeys(image.label for image in images)), tuple(images))


RELEASES = (Sop(),)
