from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from ccp_dml.data import catalog
from tests.data.conftest import encode, smooth_pixels


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


def test_listing_and_checking_import_no_tensorflow(folder: pathlib.Path) -> None:
    program = (
        "import sys; from ccp_dml.data import catalog; catalog.names(); catalog.check('emoji'); "
        f"catalog.check('image_folder', {str(folder)!r}); "
        "sys.exit(any(name in sys.modules for name in ('tensorflow', 'tensorflow_datasets')))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("cub", "CUB_200_2011.tgz"),
        ("cars196", "cars_annos.mat and the folder car_ims/"),
        ("sop", "Ebay_train.txt"),
        ("inshop", "list_eval_partition.txt"),
    ],
)
def test_planned_data_sets_say_what_to_get(name: str, files: str) -> None:
    assert name in catalog.names()
    with pytest.raises(ValueError, match="not built yet") as error:
        catalog.check(name, "/somewhere")
    message = str(error.value)
    assert files in message
    assert "--data_dir=/somewhere" in message
    assert "--dataset=image_folder" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("name", "data_dir", "message"),
    [
        ("imoge", None, "--dataset=imoge is unknown, expected one of: emoji, image_folder"),
        ("image_folder", None, "--dataset=image_folder needs --data_dir"),
        ("image_folder", "/no/such/folder", "--data_dir=/no/such/folder is not a folder"),
    ],
)
def test_bad_names_and_folders(name: str, data_dir: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        catalog.check(name, data_dir)
    with pytest.raises(ValueError, match=message):
        catalog.load(name, data_dir=data_dir)


def test_a_bad_layout_is_found_by_the_check(folder: pathlib.Path) -> None:
    for image in (folder / "bee").iterdir():
        image.unlink()
    with pytest.raises(ValueError, match="bee"):
        catalog.check("image_folder", str(folder))


def test_image_folder(
    folder: pathlib.Path, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def load() -> list:
        data = catalog.load(
            "image_folder", data_dir=str(folder), prepared_dir=str(tmp_path / "prepared"), train_fraction=0.4
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
    data = catalog.load("image_folder", data_dir=str(folder), prepared_dir=str(tmp_path / "prepared"))
    assert data.gallery is not None
    assert data.train.class_names == ("ant", "cow")
    assert data.test.class_names == data.gallery.class_names == ("bee", "eel")
    assert data.test.labels.tolist() == [0]
    assert data.gallery.labels.tolist() == [0, 1, 1]
    assert not set(data.test.image_ids.tolist()) & set(data.gallery.image_ids.tolist())


def test_a_truncated_image_is_named(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
    image = folder / "dog" / "0.jpg"
    image.write_bytes(image.read_bytes()[:200])
    with pytest.raises(ValueError, match="dog/0.jpg"):
        catalog.load("image_folder", data_dir=str(folder), prepared_dir=str(tmp_path / "prepared"))


def test_emoji(tmp_path: pathlib.Path) -> None:
    data = catalog.load("emoji", prepared_dir=str(tmp_path))
    assert (data.train.num_classes, data.test.num_classes, data.gallery) == (322, 323, None)
    assert catalog.check("emoji") == 322
    for images in (data.train, data.test):
        assert (images.labels.reshape(-1, 5) == images.labels.reshape(-1, 5)[:, :1]).all()
    code_points = [name.split()[0] for name in data.train.class_names + data.test.class_names]
    assert len(set(code_points)) == 645
