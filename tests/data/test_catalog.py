"""The data sets by name: finding sources, checking options, and loading."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import sys

import pytest

from ccp_dml.data import catalog
from ccp_dml.data.options import SourceOptions
from ccp_dml.datasets.common.release import Size
from ccp_dml.datasets.cub.release import Cub
from tests.data.conftest import encode, smooth_pixels
from tests.datasets import miniatures


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """Five classes of two or three images, the first of which are JPEG."""
    root = tmp_path / "images"
    for label, name in enumerate(["ant", "bee", "cow", "dog", "eel"]):
        (root / name).mkdir(parents=True)
        for number in range(2 + label % 2):
            kind = ("jpg", "JPEG") if number == 0 else ("png", "PNG")
            data = encode(smooth_pixels(20 + label, 24 + number, seed=10 * label + number), kind[1])
            (root / name / f"{number}.{kind[0]}").write_bytes(data)
    return root


def run_without_tensorflow(*lines: str) -> str:
    """The output of a program that fails if it imports TensorFlow or TFDS."""
    program = [
        "import sys",
        "from ccp_dml.data.catalog import check, names",
        "from ccp_dml.data.options import SourceOptions",
        *lines,
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'tensorflow_datasets')))",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(program)], check=True, timeout=60, capture_output=True, text=True
    )
    return done.stdout


def test_listing_and_checking_import_no_tensorflow(folder: pathlib.Path) -> None:
    lines = [
        "names()",
        "check(SourceOptions('emoji'))",
        f"check(SourceOptions('image_folder', {str(folder)!r}))",
    ]
    assert run_without_tensorflow(*lines) == ""


@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop", "cifar10", "imagenet", "mini_imagenet"])
def test_published_data_sets_are_checked_without_tensorflow(name: str, tmp_path: pathlib.Path) -> None:
    source = str(miniatures.WRITERS[name](tmp_path / "Größe 1"))
    options = (
        f"{name!r}, {source!r}, prepared_dir={str(tmp_path)!r}",
        f"{name!r}, {source!r}, check_counts=False",
    )
    output = run_without_tensorflow(*(f"print(check(SourceOptions({given})))" for given in options))
    published, found = (int(number) for number in output.split())
    expected = {"cub": 100, "cars196": 98, "sop": 11318, "inshop": 3997, "imagenet": 500, "mini_imagenet": 80}
    assert published == expected.get(name, 5)
    assert found == {"cifar10": 5, "imagenet": 2}.get(name, 4)


@pytest.mark.parametrize(
    ("name", "needs", "file"),
    [
        ("cub", "--data_dir or --download", "CUB_200_2011.tgz from https://data.caltech.edu"),
        ("cars196", "--data_dir", "cars_annos.mat and car_ims.tgz"),
        ("sop", "--data_dir or --download", "Stanford_Online_Products.zip from https://cvgl.stanford.edu"),
        ("inshop", "--data_dir", "Eval/list_eval_partition.txt and Img/img.zip"),
        ("cifar100_collage", "--data_dir or --download", "cifar-100-binary.tar.gz"),
        ("imagenet", "--data_dir", "ILSVRC2012_img_train.tar"),
    ],
)
def test_messages_name_the_files_to_get(name: str, needs: str, file: str, tmp_path: pathlib.Path) -> None:
    assert name in catalog.names()
    where = {"prepared_dir": str(tmp_path / "prepared")}
    with pytest.raises(ValueError, match=f"--dataset={name} needs {needs}: get .*") as error:
        catalog.check(SourceOptions(name, **where))
    assert file in str(error.value)
    with pytest.raises(ValueError, match=f"--dataset={name} --data_dir={tmp_path}: .* lacks ") as error:
        catalog.check(SourceOptions(name, str(tmp_path), **where))
    assert file in str(error.value)
    assert str(tmp_path) in str(error.value)
    if needs == "--data_dir":
        message = f"--download: {name} cannot be downloaded; expected it with one of cub, .*; get .* from"
        with pytest.raises(ValueError, match=message) as error:
            catalog.check(SourceOptions(name, download=True, **where))
        assert file in str(error.value)
    else:
        assert catalog.check(SourceOptions(name, download=True, **where)) > 0


@pytest.mark.parametrize("name", ["emoji", "image_folder"])
def test_options_of_published_data_sets_are_refused_by_others(name: str) -> None:
    with pytest.raises(ValueError, match=f"--check_counts=false: .* found --dataset={name}"):
        catalog.check(SourceOptions(name, "/", check_counts=False))
    with pytest.raises(ValueError, match=f"--download: {name} cannot be downloaded"):
        catalog.check(SourceOptions(name, "/", download=True))


def test_only_sets_with_boxes_are_cropped_to_them(tmp_path: pathlib.Path) -> None:
    message = "--crop_to_box: emoji has no bounding boxes; expected it with one of cub, cars196, inshop"
    with pytest.raises(ValueError, match=message):
        catalog.check(SourceOptions("emoji", crop_to_box=True))
    source = str(miniatures.write_cub(tmp_path / "birds"))
    options = {"data_dir": source, "prepared_dir": str(tmp_path / "prepared"), "check_counts": False}
    whole = catalog.load(SourceOptions("cub", **options))
    cropped = catalog.load(SourceOptions("cub", crop_to_box=True, **options))
    assert whole.train.boxes is None
    assert whole.test.boxes is None
    assert cropped.train.boxes is not None
    assert cropped.train.boxes.tolist() == [[6, 4, 16, 20]] * 16
    assert cropped.test.boxes is not None
    assert cropped.train.encoded([3]) == whole.train.encoded([3])


def test_boxes_for_images_of_another_size_are_refused(tmp_path: pathlib.Path) -> None:
    source = miniatures.write_inshop(tmp_path / "shop", 4, 2)
    miniatures.write_jpeg(sorted(source.rglob("*.jpg"))[0], 0, 0, size=(60, 80))
    options = {"data_dir": str(source), "prepared_dir": str(tmp_path / "prepared"), "check_counts": False}
    data = catalog.load(SourceOptions("inshop", **options))
    assert data.gallery is not None
    assert data.test.class_names == data.gallery.class_names == ("id_00000003", "id_00000004")
    with pytest.raises(ValueError, match="--crop_to_box: 1 images of inshop have another size"):
        catalog.load(SourceOptions("inshop", crop_to_box=True, **options))


def test_a_prepared_data_set_does_not_need_its_source(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    prepared = str(tmp_path / "prepared")
    monkeypatch.setattr(Cub, "sizes", {"train": Size(4, 16), "test": Size(4, 16)})
    source = miniatures.write_cub(tmp_path / "birds")
    unfinished = tmp_path / "prepared" / ".cub.incomplete" / "cub" / "zero_shot" / "incomplete.A_1.1.0"
    unfinished.mkdir(parents=True)
    (unfinished / "cub-train.array_record").write_bytes(b"what a killed process left")
    data = catalog.load(SourceOptions("cub", data_dir=str(source), prepared_dir=prepared))
    assert not unfinished.exists()
    shutil.rmtree(source)
    assert catalog.check(SourceOptions("cub", prepared_dir=prepared)) == 4
    again = catalog.load(SourceOptions("cub", prepared_dir=prepared))
    assert again.train.encoded(range(16)) == data.train.encoded(range(16))
    assert again.train.class_names == ("001.Bird_1", "002.Bird_2", "003.Bird_3", "004.Bird_4")
    assert capfd.readouterr().err.count("Preparing the data set cub in ") == 1


@pytest.mark.parametrize(
    ("name", "data_dir", "message"),
    [
        ("imoge", None, "--dataset=imoge is unknown, expected one of: emoji, image_folder"),
        ("image_folder", None, "--dataset=image_folder needs --data_dir"),
        ("image_folder", "/no/such/folder", "--data_dir=/no/such/folder is not a folder"),
    ],
)
def test_unknown_names_and_folders_are_refused(name: str, data_dir: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog.check(SourceOptions(name, data_dir))
    with pytest.raises(ValueError, match=message):
        catalog.load(SourceOptions(name, data_dir=data_dir))


def test_the_check_reads_the_layout_of_a_folder(folder: pathlib.Path) -> None:
    for image in (folder / "bee").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="bee"):
        catalog.check(SourceOptions("image_folder", str(folder)))


def test_an_image_folder_is_prepared_once(
    folder: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def load() -> list:
        data = catalog.load(
            SourceOptions(
                "image_folder",
                data_dir=str(folder),
                prepared_dir=str(tmp_path / "prepared"),
                train_fraction=0.4,
            )
        )
        assert data.gallery is None
        assert data.train.class_names == ("ant", "bee")
        assert data.test.class_names == ("cow", "dog", "eel")
        assert data.train.labels.tolist() == [0, 0, 1, 1, 1]
        assert data.test.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
        ids = data.train.image_ids.tolist() + data.test.image_ids.tolist()
        assert len(set(ids)) == 12
        assert data.train.encoded([0, 2]) == [
            (folder / name / "0.jpg").read_bytes() for name in ("ant", "bee")
        ]
        return ids

    ids = load()
    output = capfd.readouterr()
    assert output.out == ""
    assert output.err.startswith("Preparing the data set image_folder in ")
    assert load() == ids
    assert capfd.readouterr() == ("", "")


def test_query_and_gallery_share_their_classes(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines = ["file,label,split"]
    for name, splits in {
        "ant": "train,train",
        "cow": "train,train",
        "bee": "query,gallery",
        "eel": "gallery,gallery",
    }.items():
        for split, file in zip(splits.split(","), sorted((folder / name).iterdir())):
            lines.append(f"{name}/{file.name},{name},{split}")
    (folder / "manifest.csv").write_text("\n".join(lines))
    data = catalog.load(
        SourceOptions("image_folder", data_dir=str(folder), prepared_dir=str(tmp_path / "prepared"))
    )
    assert data.gallery is not None
    assert data.train.class_names == ("ant", "cow")
    assert data.test.class_names == data.gallery.class_names == ("bee", "eel")
    assert data.test.labels.tolist() == [0]
    assert data.gallery.labels.tolist() == [0, 1, 1]
    assert not set(data.test.image_ids.tolist()) & set(data.gallery.image_ids.tolist())


def test_the_error_names_a_truncated_image(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = folder / "dog" / "0.jpg"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(ValueError, match="dog/0.jpg"):
        catalog.load(
            SourceOptions("image_folder", data_dir=str(folder), prepared_dir=str(tmp_path / "prepared"))
        )


def test_the_built_in_emoji(tmp_path: pathlib.Path) -> None:
    data = catalog.load(SourceOptions("emoji", prepared_dir=str(tmp_path)))
    assert (data.train.num_classes, data.test.num_classes, data.gallery) == (322, 323, None)
    assert catalog.check(SourceOptions("emoji")) == 322
    for images in (data.train, data.test):
        assert (images.labels.reshape(-1, 5) == images.labels.reshape(-1, 5)[:, :1]).all()
    code_points = [name.split()[0] for name in data.train.class_names + data.test.class_names]
    assert len(set(code_points)) == 645
