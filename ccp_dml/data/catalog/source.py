"""Which data set is wanted, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A data set and the options of reading it.

    Attributes:
        name: one of `catalog.names()`.
        data_dir: folder with the source images, or their archive; `emoji` needs none, nor does a published
            data set that is prepared, and `fashion_mnist` looks where the Debian package puts them.
        prepared_dir: where prepared data is kept; None: `TFDS_DATA_DIR`, else a folder in the user's cache.
        train_fraction: share of the classes of an `image_folder` without manifest that is trained on.
        download: whether the source may be downloaded where no `data_dir` is given.
        check_counts: whether a published data set must have the published numbers of classes and images.
        skip_bad_images: whether images that cannot be used are left out, instead of being an error.
        crop_to_box: whether the images are what is inside their bounding boxes.
        prepared_shorter_side: shorter side, in pixels, of a smaller copy that is prepared and read instead;
            None: images are as large as they come.
    """

    name: str
    data_dir: str | None = None
    prepared_dir: str | None = None
    train_fraction: float = 0.5
    download: bool = False
    check_counts: bool = True
    skip_bad_images: bool = False
    crop_to_box: bool = False
    prepared_shorter_side: int | None = None
