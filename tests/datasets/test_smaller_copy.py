"""Copies of prepared data sets with smaller images."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from ccp_dml.data import catalog
from ccp_dml.data.collection import fingerprint
from ccp_dml.data.options import SourceOptions
from ccp_dml.datasets.common import smaller_copy
from tests.data.conftest import encode, smooth_pixels
from tests.datasets import miniatures


def opened(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size, expected", [((40, 60), (20, 30)), ((61, 40), (30, 20)), ((90, 30), (60, 20))])
def test_large_images_are_scaled_down(kind, size, expected):
    encoded = encode(smooth_pixels(*size, seed=1), kind)
    smaller = opened(smaller_copy.smaller_image(encoded, 20))
    assert smaller.format == kind
    assert smaller.size == expected[::-1]
    # Mean colors differ by no more than rounding and compression.
    means = [
        np.asarray(image.convert("RGB"), np.float64).mean((0, 1)) for image in (opened(encoded), smaller)
    ]
    np.testing.assert_allclose(*means, atol=2)


@pytest.mark.parametrize("size", [(20, 31), (19, 90), (5, 5)])
def test_small_images_are_unchanged(size):
    encoded = encode(smooth_pixels(*size, seed=1), "JPEG")
    assert smaller_copy.smaller_image(encoded, 20) is encoded


@pytest.mark.parametrize(
    "box, expected",
    [
        ((0, 0, 40, 80), (0, 0, 20, 40)),
        ((10, 20, 4, 8), (5, 10, 2, 4)),
        ((39, 79, 1, 1), (19, 39, 1, 1)),
        ((0, 0, 0, 0), (0, 0, 0, 0)),
    ],
)
def test_boxes_are_scaled_with_their_images(box, expected):
    images = [encode(smooth_pixels(*size, seed=1), "PNG") for size in ((40, 80), (20, 40))]
    assert smaller_copy.smaller_box(np.array(box, np.int32), *images) == expected
    assert smaller_copy.smaller_box(np.array(box, np.int32), images[0], images[0]) == box


@pytest.fixture
def folder(tmp_path):
    for label in range(4):
        (tmp_path / "images" / f"class {label}").mkdir(parents=True)
        for number, size in enumerate([(24, 40), (10, 12), (50, 33)]):
            data = encode(smooth_pixels(*size, seed=3 * label + number), ("PNG", "JPEG")[number % 2])
            (tmp_path / "images" / f"class {label}" / f"{number}.png").write_bytes(data)
    return tmp_path / "images"


def sources(folder, tmp_path):
    options = {"data_dir": str(folder), "prepared_dir": str(tmp_path / "prepared")}
    return SourceOptions("image_folder", **options), SourceOptions(
        "image_folder", **options, prepared_shorter_side=16
    )


def test_a_copy_differs_only_in_its_pixels(folder, tmp_path):
    whole, small = map(catalog.load, sources(folder, tmp_path))
    for original, copy in ((whole.train, small.train), (whole.test, small.test)):
        np.testing.assert_array_equal(copy.labels, original.labels)
        np.testing.assert_array_equal(copy.image_ids, original.image_ids)
        assert copy.class_names == original.class_names
        everything = np.arange(len(original))
        for encoded, image in zip(original.encoded(everything), copy.encoded(everything)):
            assert min(opened(image).size) == min(16, *opened(encoded).size)
            assert (encoded == image) == (min(opened(encoded).size) <= 16)
    assert fingerprint([whole.train]) != fingerprint([small.train])


NAMES = ["a", "a ", " a", "\u3000", "\x0b", " ", "b", "b\x85c", "b\u2028c", "\ufeffd"]


@pytest.mark.parametrize("with_copy", [False, True])
def test_names_of_classes_are_kept_as_they_are(folder, tmp_path, with_copy):
    """TFDS would strip them and leave out blank ones."""
    images = sorted((folder / "class 0").iterdir())[:2]
    for name in NAMES:
        for image in images:
            (tmp_path / "named" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(image, tmp_path / "named" / name)
    for _ in range(2):
        data = catalog.load(sources(tmp_path / "named", tmp_path)[with_copy])
        assert data.train.class_names + data.test.class_names == tuple(sorted(NAMES))
        assert data.train.class_sizes() | data.test.class_sizes() == dict.fromkeys(NAMES, 2)


@pytest.mark.parametrize("when", [0, 3])
def test_an_interrupted_copy_leaves_no_data(folder, tmp_path, monkeypatch, when):
    source = sources(folder, tmp_path)[1]
    calls = iter(range(100))
    real = smaller_copy.smaller_image

    def failing(encoded, shorter_side):
        if next(calls) == when:
            raise KeyboardInterrupt
        return real(encoded, shorter_side)

    monkeypatch.setattr(smaller_copy, "smaller_image", failing)
    with pytest.raises(KeyboardInterrupt):
        catalog.load(source)
    assert not list((tmp_path / "prepared").glob("image_folder/*side_16/1.1.0"))
    monkeypatch.setattr(smaller_copy, "smaller_image", real)
    assert len(catalog.load(source).train) == 6


def test_boxes_of_a_published_data_set(tmp_path):
    tfds.disable_progress_bar()
    source = miniatures.write_cub(tmp_path / "cub", 4, 2)
    options = {"data_dir": str(source), "prepared_dir": str(tmp_path / "p"), "check_counts": False}
    whole = catalog.load(SourceOptions("cub", crop_to_box=True, **options)).train
    side = min(opened(whole.encoded([0])[0]).size) // 2
    small = catalog.load(SourceOptions("cub", crop_to_box=True, prepared_shorter_side=side, **options)).train
    for row in range(len(whole)):
        before, after = (opened(part.encoded([row])[0]).size[::-1] for part in (whole, small))
        assert min(after) == min(side, *before)
        ratio = min(after) / min(before)
        np.testing.assert_allclose(small.boxes[row], whole.boxes[row] * ratio, atol=1.01)
        top, left, height, width = small.boxes[row]
        assert top + height <= after[0]
        assert left + width <= after[1]
