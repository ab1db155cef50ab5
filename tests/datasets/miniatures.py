"""Miniatures of published data sets: a few small images in the original files and formats.

    python -m tests.datasets.miniatures cub DIR
    python train.py --dataset=cub --data_dir=DIR --check_counts=false ...

The dummy data of the builders are miniatures too; `... cub datasets/cub/dummy_data` writes them again.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import io as scipy_io


def write_cub(folder: Path, num_classes: int = 8, images_per_class: int = 4) -> Path:
    """Writes `CUB_200_2011/` with its four text files and the folder `images`; returns `folder`."""
    top = folder / "CUB_200_2011"
    classes = [f"{label:03d}.Bird_{label}" for label in range(1, num_classes + 1)]
    listed = [
        (label, f"{classes[label]}/Bird_{i:04d}.jpg") for label, i in _grid(num_classes, images_per_class)
    ]
    for number, (label, file) in enumerate(listed):
        write_jpeg(top / "images" / file, label, number)
    _write_lines(top / "classes.txt", [f"{i} {name}" for i, name in enumerate(classes, 1)])
    _write_lines(top / "images.txt", [f"{i} {file}" for i, (_, file) in enumerate(listed, 1)])
    labels = [f"{i} {label + 1}" for i, (label, _) in enumerate(listed, 1)]
    _write_lines(top / "image_class_labels.txt", labels)
    boxes = [f"{i} 4.0 6.0 20.0 16.0" for i, _ in enumerate(listed, 1)]
    _write_lines(top / "bounding_boxes.txt", boxes)
    return folder


def write_cars196(folder: Path, num_classes: int = 8, images_per_class: int = 4) -> Path:
    """Writes `cars_annos.mat` and the folder `car_ims`; returns `folder`."""
    rows = []
    for number, (label, _) in enumerate(_grid(num_classes, images_per_class)):
        file = f"car_ims/{number + 1:06d}.jpg"
        write_jpeg(folder / file, label, number)
        rows.append((file, 4, 6, 24, 22, label + 1, 0))
    fields = ("relative_im_path", *_BOX, "class", "test")
    _write_mat(folder / "cars_annos.mat", _class_names(num_classes), fields, rows)
    return folder


def write_cars196_devkit(folder: Path, num_classes: int = 8, images_per_class: int = 4) -> Path:
    """Writes the newer layout: `devkit`, `cars_train`, `cars_test`, the labels of the test images."""
    rows: dict[str, list[tuple]] = {"train": [], "test": []}
    for number, (label, index) in enumerate(_grid(num_classes, images_per_class)):
        part = "train" if index % 2 == 0 else "test"
        file = f"{len(rows[part]) + 1:05d}.jpg"
        write_jpeg(folder / f"cars_{part}" / file, label, number)
        rows[part].append((4, 6, 24, 22, label + 1, file))
    fields = (*_BOX, "class", "fname")
    (folder / "devkit").mkdir()
    _write_mat(folder / "devkit" / "cars_meta.mat", _class_names(num_classes))
    _write_mat(folder / "devkit" / "cars_train_annos.mat", None, fields, rows["train"])
    _write_mat(folder / "cars_test_annos_withlabels.mat", None, fields, rows["test"])
    return folder


def write_sop(folder: Path, num_classes: int = 8, images_per_class: int = 4) -> Path:
    """Writes `Stanford_Online_Products/` with two text files and the folders of two categories."""
    top = folder / "Stanford_Online_Products"
    header = "image_id class_id super_class_id path"
    texts = {"Ebay_train.txt": [header], "Ebay_test.txt": [header]}
    for number, (label, index) in enumerate(_grid(num_classes, images_per_class)):
        category = ("bicycle", "sofa")[label % 2]
        file = f"{category}_final/{11085122871 + label}_{index}.JPG"
        write_jpeg(top / file, label, number)
        text = "Ebay_train.txt" if label < num_classes // 2 else "Ebay_test.txt"
        texts[text].append(f"{number + 1} {label + 1} {label % 2 + 1} {file}")
    for text, lines in texts.items():
        _write_lines(top / text, lines)
    return folder


def write_inshop(folder: Path, num_classes: int = 8, images_per_class: int = 4) -> Path:
    """Writes `Anno`, `Eval` and `Img/img`; half of the images of a test class are queries."""
    top = folder / "In-shop Clothes Retrieval Benchmark"
    partition, boxes = [], []
    for number, (label, index) in enumerate(_grid(num_classes, images_per_class)):
        name = f"id_{label + 1:08d}"
        file = f"img/WOMEN/Dresses/{name}/{index + 1:02d}_1_front.jpg"
        write_jpeg(top / "Img" / file, label, number, size=(256, 256))
        status = "train" if label < num_classes // 2 else ("query", "gallery")[index % 2]
        partition.append(f"{file}     {name} {status}")
        boxes.append(f"{file} 1 1 050 030 200 220")
    count = str(len(partition))
    _write_lines(
        top / "Eval" / "list_eval_partition.txt",
        [count, "image_name item_id evaluation_status", *partition],
    )
    _write_lines(
        top / "Anno" / "list_bbox_inshop.txt",
        [count, "image_name clothes_type pose_type x_1 y_1 x_2 y_2", *boxes],
    )
    return folder


def write_cifar10(folder: Path, images_per_batch: int = 20) -> Path:
    """Writes `cifar-10-batches-bin/`, with the classes in turn in each batch."""
    top = folder / "cifar-10-batches-bin"
    _write_lines(top / "batches.meta.txt", [f"class_{label}" for label in range(10)])
    for batch in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        labels = [(label % 10,) for label in range(images_per_batch)]
        (top / f"{batch}.bin").write_bytes(_cifar_records(labels))
    return folder


def write_cifar100(folder: Path, images_per_class: int = 2) -> Path:
    """Writes `cifar-100-binary/` with all classes, each as often in `train.bin` as in `test.bin`."""
    top = folder / "cifar-100-binary"
    coarse = sorted({*CIFAR100})
    fine = sorted(name for of_coarse in CIFAR100.values() for name in of_coarse)
    _write_lines(top / "coarse_label_names.txt", coarse)
    _write_lines(top / "fine_label_names.txt", fine)
    coarse_of = {name: coarse.index(key) for key, of_coarse in CIFAR100.items() for name in of_coarse}
    labels = [(coarse_of[name], label) for label, name in enumerate(fine)] * images_per_class
    for part in ("train", "test"):
        (top / f"{part}.bin").write_bytes(_cifar_records(labels))
    return folder


def write_imagenet(folder: Path, num_classes: int = 4, images_per_class: int = 2) -> Path:
    """Writes the folder `train` with a folder for each class."""
    for number, (label, index) in enumerate(_grid(num_classes, images_per_class)):
        name = f"n{1440764 + label:08d}"
        write_jpeg(folder / "train" / name / f"{name}_{index}.JPEG", label, number)
    return folder


def write_mini_imagenet(folder: Path, num_classes: int = 5, images_per_class: int = 2) -> Path:
    """Writes `images` and three lists; the last class is in `test.csv`, the one before it in `val.csv`."""
    lists = {name: ["filename,label"] for name in ("train", "val", "test")}
    for number, (label, index) in enumerate(_grid(num_classes, images_per_class)):
        name = f"n{1532829 + label:08d}"
        file = f"{name}{index:08d}.jpg"
        write_jpeg(folder / "images" / file, label, number)
        part = {num_classes - 1: "test", num_classes - 2: "val"}.get(label, "train")
        lists[part].append(f"{file},{name}")
    for name, lines in lists.items():
        _write_lines(folder / f"{name}.csv", lines)
    return folder


WRITERS: dict[str, Callable[..., Path]] = {
    "cub": write_cub,
    "cars196": write_cars196,
    "sop": write_sop,
    "inshop": write_inshop,
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "imagenet": write_imagenet,
    "mini_imagenet": write_mini_imagenet,
}

CIFAR100 = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

_BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def write_jpeg(file: Path, label: int, seed: int, size: tuple[int, int] = (32, 28)) -> None:
    """Writes a smooth picture in the color of its class."""
    generator = np.random.default_rng(seed)
    color = np.array([40 * label % 256, 255 - 25 * label % 256, 73 * label % 256])
    coarse = np.clip(color + generator.normal(0, 30, (4, 4, 3)), 0, 255).astype(np.uint8)
    output = io.BytesIO()
    Image.fromarray(coarse).resize(size).save(output, "jpeg", quality=80)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(output.getvalue())


def _grid(num_classes: int, images_per_class: int) -> list[tuple[int, int]]:
    return [(label, index) for label in range(num_classes) for index in range(images_per_class)]


def _write_lines(file: Path, lines: list[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _class_names(num_classes: int) -> list[str]:
    return [f"Maker Model {label} Sedan 2012" for label in range(1, num_classes + 1)]


def _write_mat(
    file: Path, names: list[str] | None, fields: tuple[str, ...] = (), rows: list[tuple] | None = None
) -> None:
    """Writes a cell row `class_names` and a struct row `annotations`, as MATLAB does."""
    content = {}
    if names is not None:
        content["class_names"] = np.array([names], object)
    if rows is not None:
        kinds = np.dtype([(field, object) for field in fields])
        content["annotations"] = np.array([rows], kinds)
    scipy_io.savemat(file, content)


def _cifar_records(labels: list[tuple[int, ...]]) -> bytes:
    """Returns records of labels and 32 x 32 pixels; red encodes the position, green and blue the class."""
    records = b""
    for place, of_image in enumerate(labels):
        values = (place % 256, 20 * of_image[-1] % 256, 100 + of_image[-1])
        planes = np.repeat(np.array(values, np.uint8), 32 * 32)
        records += bytes(of_image) + planes.tobytes()
    return records


def main(arguments: Sequence[str]) -> None:
    """Writes a miniature."""
    parser = argparse.ArgumentParser(
        "python -m tests.datasets.miniatures",
        description="Writes a miniature of a published data set, to try it out.",
    )
    parser.add_argument("name", choices=WRITERS, help="the data set")
    parser.add_argument("folder", type=Path, help="where its files go; train.py takes it as --data_dir")
    parser.add_argument(
        "sizes", type=int, nargs="*", help="number of classes and of images per class; of CIFAR, of images"
    )
    parsed = parser.parse_args(arguments)
    WRITERS[parsed.name](parsed.folder, *parsed.sizes)


if __name__ == "__main__":
    main(sys.argv[1:])
