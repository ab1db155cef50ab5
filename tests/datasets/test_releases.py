"""The lists, archives and checks of published data sets, on miniatures."""

from __future__ import annotations

import importlib
import io
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccp_dml.datasets.cifar100.release import TEST_CLASSES, VALIDATION_CLASSES
from ccp_dml.datasets.common.release import Listing, Release, Size, SourceImage
from ccp_dml.datasets.common.source_files import SourceError
from tests.datasets import miniatures

PUBLISHED = {
    "cub": {"train": (100, 5864), "test": (100, 5924)},
    "cars196": {"train": (98, 8054), "test": (98, 8131)},
    "sop": {"train": (11318, 59551), "test": (11316, 60502)},
    "inshop": {"train": (3997, 25882), "query": (3985, 14218), "gallery": (3985, 12612)},
}


def release(name: str, variant: str = "zero_shot") -> Release:
    releases = importlib.import_module(f"ccp_dml.datasets.{name}.release").RELEASES
    return next(found for found in releases if found.variant == variant)


def listing(found: Release, source: Path) -> Listing:
    return found.listing(found.find(source))


def by_split(images) -> dict[str, list[str]]:
    splits: dict[str, list[str]] = {}
    for image in images:
        splits.setdefault(image.split, []).append(image.label)
    return splits


@pytest.mark.parametrize("name", PUBLISHED)
def test_sizes_are_the_published_ones(name):
    sizes = release(name).sizes
    assert {split: (size.classes, size.images) for split, size in sizes.items()} == PUBLISHED[name]


def test_cub(tmp_path):
    found = listing(release("cub"), miniatures.write_cub(tmp_path / "Vögel und mehr", 6, 2))
    assert found.class_names == tuple(f"{i:03d}.Bird_{i}" for i in range(1, 7))
    assert by_split(found.images) == {
        "train": [name for name in found.class_names[:3] for _ in range(2)],
        "test": [name for name in found.class_names[3:] for _ in range(2)],
    }
    assert found.images[3] == SourceImage(
        "images/002.Bird_2/Bird_0001.jpg", "002.Bird_2", "train", (4, 6, 24, 22)
    )


@pytest.mark.parametrize("write", [miniatures.write_cars196, miniatures.write_cars196_devkit])
def test_cars196_in_both_layouts(tmp_path, write):
    source = write(tmp_path / "autos", 6, 4)
    found = listing(release("cars196"), source)
    assert found.class_names == tuple(f"Maker Model {i} Sedan 2012" for i in range(1, 7))
    splits = by_split(found.images)
    assert {split: sorted(labels) for split, labels in splits.items()} == {
        "train": sorted(found.class_names[:3] * 4),
        "test": sorted(found.class_names[3:] * 4),
    }
    assert {image.box for image in found.images} == {(4, 6, 24, 22)}
    assert len({image.file for image in found.images}) == 24
    assert all((source / image.file).is_file() for image in found.images)


def test_sop(tmp_path):
    found = listing(release("sop"), miniatures.write_sop(tmp_path, 4, 2))
    assert found.class_names == ("bicycle 1", "sofa 2", "bicycle 3", "sofa 4")
    assert by_split(found.images) == {
        "train": ["bicycle 1", "bicycle 1", "sofa 2", "sofa 2"],
        "test": ["bicycle 3", "bicycle 3", "sofa 4", "sofa 4"],
    }
    assert found.images[0] == SourceImage("bicycle_final/11085122871_0.JPG", "bicycle 1", "train")


def test_inshop(tmp_path):
    found = listing(release("inshop"), miniatures.write_inshop(tmp_path, 4, 2))
    assert by_split(found.images) == {
        "train": ["id_00000001"] * 2 + ["id_00000002"] * 2,
        "query": ["id_00000003", "id_00000004"],
        "gallery": ["id_00000003", "id_00000004"],
    }
    assert found.images[0].file == "img/WOMEN/Dresses/id_00000001/01_1_front.jpg"
    assert found.images[0].box == (50, 30, 200, 220)


def test_imagenet(tmp_path):
    found = listing(release("imagenet"), miniatures.write_imagenet(tmp_path, 4, 2))
    names = [f"n0144076{i}" for i in range(4, 8)]
    assert by_split(found.images) == {
        "train": [name for name in names[:2] for _ in range(2)],
        "test": [name for name in names[2:] for _ in range(2)],
    }
    assert found.images[0].file == "train/n01440764/n01440764_0.JPEG"


def test_mini_imagenet_in_both_layouts(tmp_path):
    found = listing(release("mini_imagenet"), miniatures.write_mini_imagenet(tmp_path / "lists", 5, 2))
    names = tuple(f"n015328{i}" for i in range(29, 34))
    assert found.class_names == names
    assert by_split(found.images) == {
        "train": [name for name in names[:4] for _ in range(2)],
        "test": [names[4]] * 2,
    }
    assert found.images[-1].file == "images/n0153283300000001.jpg"

    top = tmp_path / "folders" / "miniimagenet"
    (top / "splits/ravi-larochelle").mkdir(parents=True)
    for part, classes in {"train": names[:3], "val": names[3:4], "test": names[4:]}.items():
        (top / f"splits/ravi-larochelle/{part}.txt").write_text("\n".join(classes))
        for name in classes:
            for index in range(2):
                miniatures.write_jpeg(top / "data" / name / f"{index}.jpg", 0, index)
    again = listing(release("mini_imagenet"), tmp_path / "folders")
    assert again.class_names == names
    assert by_split(again.images) == by_split(found.images)
    assert again.images[-1].file == f"data/{names[4]}/1.jpg"


def test_cifar10(tmp_path):
    source = miniatures.write_cifar10(tmp_path, 12)
    names = [f"class_{label}" for label in range(10)]
    zero_shot = listing(release("cifar10"), source)
    splits = by_split(zero_shot.images)
    assert {split: sorted(set(labels)) for split, labels in splits.items()} == {
        "train": names[:5],
        "test": names[5:],
    }
    assert (len(splits["train"]), len(splits["test"])) == (6 * 7, 6 * 5)
    closed = listing(release("cifar10", "closed"), source)
    assert [(image.file, image.label) for image in closed.images] == [
        (image.file, image.label) for image in zero_shot.images
    ]
    assert {split: len(labels) for split, labels in by_split(closed.images).items()} == {
        "train": 60,
        "test": 12,
    }
    assert closed.images[13] == SourceImage("data_batch_2.bin#1", "class_1", "train")


def test_cifar_pixels(tmp_path):
    found = release("cifar10", "closed")
    files = found.find(miniatures.write_cifar10(tmp_path, 12))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    batch = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    batch.write_bytes(b"\7" + pixels.tobytes())
    image = SourceImage("data_batch_3.bin#0", "class_7", "train")
    assert image in found.listing(files).images
    [(_, read)] = found.open_images(files, [image])
    decoded = np.asarray(Image.open(io.BytesIO(read())))
    np.testing.assert_array_equal(decoded, pixels.transpose(1, 2, 0))


def test_cifar100(tmp_path):
    source = miniatures.write_cifar100(tmp_path, 1)
    found = listing(release("cifar100"), source)
    everything = sorted(name for of_coarse in miniatures.CIFAR100.values() for name in of_coarse)
    assert (len(VALIDATION_CLASSES), len(TEST_CLASSES)) == (16, 20)
    assert sorted(found.class_names) == everything
    assert found.class_names[:64] == tuple(
        name for name in everything if name not in (*VALIDATION_CLASSES, *TEST_CLASSES)
    )
    assert found.class_names[64:80] == VALIDATION_CLASSES
    splits = by_split(found.images)
    assert set(splits["test"]) == set(TEST_CLASSES)
    assert set(splits["train"]) == set(found.class_names[:80])
    closed = by_split(listing(release("cifar100", "closed"), source).images)
    assert set(closed["train"]) == set(closed["test"]) == set(everything)
    assert (len(closed["train"]), len(closed["test"])) == (100, 100)


def test_cifar100_collage(tmp_path):
    found = release("cifar100", "collage")
    files = found.find(miniatures.write_cifar100(tmp_path, 2))
    images = found.listing(files).images
    backgrounds = {"flowers", "large_man-made_outdoor_things", "large_natural_outdoor_scenes", "trees"}
    fine = sorted(name for of_coarse in miniatures.CIFAR100.values() for name in of_coarse)
    coarse_of = {name: coarse for coarse, names in miniatures.CIFAR100.items() for name in names}
    trains = {name for names in miniatures.CIFAR100.values() for name in names[:3]}
    for split, count in {"train": 16 * 3 * 4, "test": 16 * 2 * 4}.items():
        chosen = [image for image in images if image.split == split]
        assert len(chosen) == count
        collages = [
            (image, np.asarray(Image.open(io.BytesIO(read()))))
            for image, read in found.open_images(files, chosen)
        ]
        places, used = [], []
        for image, pixels in collages:
            assert pixels.shape == (64, 64, 3)
            tiles = [pixels[top : top + 32, left : left + 32] for top in (0, 32) for left in (0, 32)]
            assert all((tile == tile[0, 0]).all() for tile in tiles)
            names = [fine[int(tile[0, 0, 2]) - 100] for tile in tiles]
            assert all((name in trains) == (split == "train") for name in names)
            objects = [i for i, name in enumerate(names) if coarse_of[name] not in backgrounds]
            assert len(objects) == 1
            assert coarse_of[names[objects[0]]] == image.label
            places += objects
            used += [name for i, name in enumerate(names) if i not in objects]
        assert set(places) == {0, 1, 2, 3}
        # No background is drawn again before all were, except for at most two left over.
        counts = [used.count(name) for name in set(used)]
        assert len(counts) == 4 * (3 if split == "train" else 2)
        assert max(counts) - min(counts) <= 4 + 2 * (len(used) // (4 * len(counts)))
        again = [read() for _, read in found.open_images(files, chosen)]
        assert [np.asarray(Image.open(io.BytesIO(data))).tobytes() for data in again] == [
            pixels.tobytes() for _, pixels in collages
        ]


def pack(folder: Path, archive: Path, *names: str) -> None:
    """Moves files and folders into an archive."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w") as packed:
            for name in names:
                for file in sorted((folder / name).rglob("*")):
                    packed.write(file, file.relative_to(folder))
    else:
        with tarfile.open(archive, "w:gz") as packed:
            for name in names:
                packed.add(folder / name, name)
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def packed(name: str, folder: Path) -> Path:
    """Writes a miniature in its published archives; returns the folder."""
    if name == "cars196_devkit":
        miniatures.write_cars196_devkit(folder, 4, 2)
        pack(folder, folder / "car_devkit.tgz", "devkit")
        pack(folder, folder / "cars_train.tgz", "cars_train")
        pack(folder, folder / "cars_test.tgz", "cars_test")
        return folder
    miniatures.WRITERS[name](folder)
    if name == "cub":
        pack(folder, folder / "CUB_200_2011.tgz", "CUB_200_2011")
    elif name == "cars196":
        pack(folder, folder / "car_ims.tgz", "car_ims")
    elif name == "sop":
        pack(folder, folder / "Stanford_Online_Products.zip", "Stanford_Online_Products")
    elif name == "inshop":
        pack(folder / "In-shop Clothes Retrieval Benchmark/Img", folder / "img.zip", "img")
    elif name == "cifar10":
        pack(folder, folder / "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
    return folder


@pytest.mark.parametrize("name", ["cub", "cars196", "cars196_devkit", "sop", "inshop", "cifar10"])
def test_archives_and_folders_give_the_same_images(tmp_path, name):
    found = release(name.removesuffix("_devkit"))
    write = getattr(miniatures, f"write_{name}")
    unpacked = found.find(write(tmp_path / "unpacked", *((4, 2) if name.endswith("devkit") else ())))
    archives = found.find(packed(name, tmp_path / "packed"))
    assert found.listing(archives) == found.listing(unpacked)
    images = found.listing(unpacked).images
    contents = [
        {image: read() for image, read in found.open_images(files, images)} for files in (unpacked, archives)
    ]
    assert contents[0] == contents[1]
    assert len(contents[0]) == len(images)


@pytest.mark.parametrize(
    "name, missing, to_get",
    [
        ("cub", "classes.txt", "CUB_200_2011.tgz from https://data.caltech.edu/records/65de6-vp158"),
        ("cars196", "car_ims", "cars_annos.mat and car_ims.tgz"),
        ("sop", "Ebay_test.txt", "Stanford_Online_Products.zip from https://cvgl.stanford.edu"),
        ("inshop", "list_bbox_inshop.txt", "Anno/list_bbox_inshop.txt, Eval/list_eval_partition.txt and"),
        ("cifar10", "test_batch.bin", "cifar-10-binary.tar.gz"),
        ("cifar100", "fine_label_names.txt", "cifar-100-binary.tar.gz"),
        ("imagenet", "train", "ILSVRC2012_img_train.tar"),
        ("mini_imagenet", "val.csv", "train.csv, val.csv and test.csv"),
    ],
)
def test_the_message_names_missing_files_and_where_to_get_them(tmp_path, name, missing, to_get):
    miniatures.WRITERS[name](tmp_path / "data")
    [path] = (tmp_path / "data").rglob(missing)
    path.rename(tmp_path / "away")
    for source in (tmp_path / "data", tmp_path / "nowhere"):
        with pytest.raises(SourceError) as error:
            release(name).find(source)
        message = str(error.value)
        assert message.startswith(f"{source} ")
        assert f"get {to_get}" in message
        assert "\n" not in message
    with pytest.raises(SourceError, match=f"lacks {missing}"):
        release(name).find(tmp_path / "data")


def test_the_message_names_the_file_that_lists_too_few_images(tmp_path):
    found = release("inshop")
    files = found.find(miniatures.write_inshop(tmp_path / "few", 4, 2))
    message = (
        r"inshop: list_eval_partition\.txt has 2 classes and 4 images for train; "
        r"expected 3,997 classes and 25,882 images"
    )
    with pytest.raises(SourceError, match=message):
        found.check_sizes(found.listing(files), files)
    images = tuple(
        SourceImage(f"{i}", f"{i % 1000}", "train" if i % 1000 < 500 else "test") for i in range(2000)
    )
    files = release("imagenet").find(miniatures.write_imagenet(tmp_path / "imagenet"))
    with pytest.raises(SourceError, match="the folder train has 2,000 images; expected 1,281,167"):
        release("imagenet").check_sizes(Listing((), images), files)


@pytest.mark.parametrize(
    "name, variant, write, expected",
    [
        ("cars196", "zero_shot", "cars196", "cars_annos.mat has 4 classes"),
        (
            "cars196",
            "zero_shot",
            "cars196_devkit",
            "cars_train_annos.mat and cars_test_annos_withlabels.mat have 4 classes",
        ),
        ("mini_imagenet", "zero_shot", "mini_imagenet", "train.csv and val.csv have 4 classes"),
        ("cifar10", "zero_shot", "cifar10", "data_batch_1.bin has 20 images; expected 10,000"),
        ("cifar10", "closed", "cifar10", "data_batch_1.bin has 20 images; expected 10,000"),
        ("cifar100", "zero_shot", "cifar100", "train.bin has 200 images; expected 50,000"),
        ("cifar100", "collage", "cifar100", "train.bin has 200 images; expected 50,000"),
    ],
)
def test_the_message_names_files_of_the_layout_found(tmp_path, name, variant, write, expected):
    found = release(name, variant)
    files = found.find(getattr(miniatures, f"write_{write}")(tmp_path))
    with pytest.raises(SourceError, match=f"^(cars196: |mini_imagenet: )?{expected}"):
        found.check_sizes(found.listing(files), files)


def test_reading_a_missing_image_is_an_error(tmp_path):
    found = release("cub")
    files = found.find(miniatures.write_cub(tmp_path, 4, 2))
    gone = sorted((tmp_path / "CUB_200_2011" / "images").rglob("*.jpg"))[1:3]
    for file in gone:
        file.unlink()
    opened = list(found.open_images(files, found.listing(files).images))
    absent = []
    for image, read in opened:
        try:
            read()
        except FileNotFoundError:
            absent.append(tmp_path / "CUB_200_2011" / image.file)
    assert (len(opened), absent) == (8, gone)


@pytest.mark.parametrize(
    "name, file, content, expected",
    [
        ("cub", "images.txt", b"1 a.jpg\nb.jpg\n", "images.txt, line 2: found 1 columns, expected 2"),
        ("cub", "images.txt", b"99 a.jpg\n", "image_class_labels.txt: image 99 of images.txt has no"),
        ("cub", "bounding_boxes.txt", b"1 0 0 5 5\n", "bounding_boxes.txt: image 2 of images.txt has no box"),
        ("cub", "bounding_boxes.txt", b"1 0 0 5 five\n", "'0 0 5 five' are not numbers"),
        ("cub", "classes.txt", b"\xff\xfe", "classes.txt is not text in UTF-8"),
        ("cars196", "cars_annos.mat", b"no matrix", "cars_annos.mat cannot be read as a MATLAB file"),
        ("sop", "Ebay_train.txt", b"header\n1 2 3\n", "Ebay_train.txt, line 2: found 3 columns, expected 4"),
        ("inshop", "list_eval_partition.txt", b"1\nheader\na.jpg id_1 val\n", "a.jpg is in 'val'; expected"),
        ("cifar10", "test_batch.bin", b"1234", "test_batch.bin has 4 bytes; expected a multiple of 3073"),
        (
            "cifar10",
            "test_batch.bin",
            b"\x63" * 3073,
            "test_batch.bin#0 is of class 99; expected less than 10",
        ),
        ("cifar100", "fine_label_names.txt", b"apple\n", "fine_label_names.txt has 1 names; expected 100"),
        ("mini_imagenet", "val.csv", b"filename,label\na.jpg\n", "val.csv: the line 'a.jpg' has no class"),
    ],
)
def test_texts_in_another_format_are_refused(tmp_path, name, file, content, expected):
    miniatures.WRITERS[name](tmp_path)
    [path] = tmp_path.rglob(file)
    path.write_bytes(content)
    with pytest.raises(SourceError) as error:
        listing(release(name), tmp_path)
    assert expected in str(error.value)


def test_sizes_are_counted():
    images = [("a", "train"), ("a", "train"), ("b", "train"), ("b", "test")]
    found = Listing(("a", "b"), tuple(SourceImage(f"{i}", *image) for i, image in enumerate(images)))
    assert found.sizes() == {"train": Size(2, 3), "test": Size(1, 1)}
