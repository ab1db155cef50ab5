"""Cars196 as published: `cars_annos.mat` and `car_ims`, or the devkit, `cars_train` and `cars_test`."""

from __future__ import annotations

import io
from typing import Any

from ccp_dml.datasets.common.release import TEST, TRAIN, Listing, Release, Size, SourceImage
from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

_ALL = "cars_annos.mat"
_META = "cars_meta.mat"
_TRAIN_PART = "cars_train_annos.mat"
_TEST_PART = "cars_test_annos_withlabels.mat"
_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


class Cars196(Release):
    """196 models of cars: the first half of the classes for training, the second half for testing.

    The two layouts hold the same images under different names and in different orders, so image ids differ
    between them.
    """

    name = "cars196"
    page = "https://ai.stanford.edu/~jkrause/cars/car_dataset.html (offline since 2023; ask who has a copy)"
    to_get = (
        "cars_annos.mat and car_ims.tgz, or car_devkit.tgz, cars_test_annos_withlabels.mat, cars_train.tgz "
        "and cars_test.tgz,"
    )
    layouts = (
        Layout(needed=(_ALL, "car_ims"), archives={"car_ims.tgz": ("car_ims",)}),
        Layout(
            needed=(_META, _TRAIN_PART, _TEST_PART, "cars_train", "cars_test"),
            archives={
                "car_devkit.tgz": (_META, _TRAIN_PART),
                "cars_train.tgz": ("cars_train",),
                "cars_test.tgz": ("cars_test",),
            },
            folders=("", "devkit", "car_devkit/devkit", "cars_train", "cars_test"),
        ),
    )
    sizes = {TRAIN: Size(98, 8054), TEST: Size(98, 8131)}
    counted_in = dict.fromkeys((TRAIN, TEST), (_ALL, _TRAIN_PART, _TEST_PART))
    has_boxes = True

    def listing(self, files: SourceFiles) -> Listing:
        """Reads the images in the order of the annotations."""
        texts = files.read([name for name in files.layout.needed if name.endswith(".mat")])
        contents = {name: _load(content, name) for name, content in texts.items()}
        names = _class_names(contents, _ALL if _ALL in contents else _META)
        images: list[SourceImage] = []
        for file, column, folder in (
            (_ALL, "relative_im_path", ""),
            (_TRAIN_PART, "fname", "cars_train/"),
            (_TEST_PART, "fname", "cars_test/"),
        ):
            for row in _annotations(contents, file):
                label = int(_value(row, "class", file))
                if not 1 <= label <= len(names):
                    raise SourceError(f"{file}: class {label} is not between 1 and {len(names)}")
                left, top, right, bottom = (int(_value(row, name, file)) for name in _BOX)
                split = TRAIN if label <= len(names) // 2 else TEST
                image = f"{folder}{_value(row, column, file)}"
                images.append(SourceImage(image, names[label - 1], split, (left, top, right, bottom)))
        return Listing(names, tuple(images))


def _load(content: bytes, file: str) -> dict[str, Any]:
    # Only preparation needs SciPy.
    from scipy import io as scipy_io

    try:
        return scipy_io.loadmat(io.BytesIO(content))
    except Exception as error:  # SciPy raises errors of many types.
        raise SourceError(f"{file} cannot be read as a MATLAB file ({error})") from None


def _class_names(contents: dict[str, dict[str, Any]], file: str) -> tuple[str, ...]:
    if "class_names" not in contents[file]:
        raise SourceError(f"{file} has no class_names")
    return tuple(str(cell.item()) for cell in contents[file]["class_names"].ravel())


def _annotations(contents: dict[str, dict[str, Any]], file: str) -> Any:
    """Returns the rows of the struct array of a file; nothing if the layout does not have the file."""
    if file not in contents:
        return ()
    if "annotations" not in contents[file]:
        raise SourceError(f"{file} has no annotations")
    return contents[file]["annotations"].ravel()


def _value(row: Any, column: str, file: str) -> Any:
    if column not in (row.dtype.names or ()):
        raise SourceError(f"{file} has no {column}; found {', '.join(row.dtype.names or ())}")
    return row[column].item()


RELEASES = (Cars196(),)
