"""Bad images in a source: one error names them all, or they are left out and reported."""

from __future__ import annotations

import csv
import functools
import io
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ccp_dml.data import catalog
from ccp_dml.data.augmentation import TrainPreprocessing
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.options import SourceOptions
from ccp_dml.data.pipeline import InferenceBatches, training_batches
from ccp_dml.data.sampling import MPerClassSampler
from ccp_dml.datasets.common import images, source_files
from ccp_dml.datasets.common.images import ImageError, upright_rgb
from ccp_dml.datasets.image_folder import manifest
from ccp_dml.datasets.image_folder.entries import SPLITS, LayoutError
from ccp_dml.errors import UserError
from tests.datasets import bad_images, miniatures

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::RuntimeWarning:PIL")
FUZZ = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LABELS = ("ant", "bee", "cow", "dog")


@pytest.fixture(autouse=True)
def _quiet():
    logging.getLogger("absl").setLevel(logging.ERROR)


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Four classes: usable pictures in three, one in "dog", and unusable files in all but "ant"."""
    top = tmp_path / "corpus"
    for label in LABELS:
        (top / label).mkdir(parents=True)
    for label in ("ant", "bee", "cow"):
        for name, data in bad_images.usable().items():
            (top / label / name).write_bytes(data)
    (top / "dog" / "good.png").write_bytes(bad_images.encode(bad_images.picture(), "PNG"))
    for index, (name, (make, _)) in enumerate(bad_images.unusable().items()):
        make(top / ("bee", "cow", "dog")[index % 3] / name)
    return top


def bad_files(top: Path) -> dict[str, str]:
    """The expected reason of each unusable file by its path."""
    found = {}
    for index, (name, (_, reason)) in enumerate(bad_images.unusable().items()):
        found[str(top / ("bee", "cow", "dog")[index % 3] / name)] = reason
    return found


def write_manifest(top: Path) -> dict[str, str]:
    """Lists all files of the corpus and two missing ones; returns the reason of each bad file by its path."""
    rows = [
        (f"{label}/{name}", label, "train" if label in ("ant", "bee") else "test")
        for label in LABELS
        for name in sorted(os.listdir(top / label))
    ]
    rows += [("gone.jpg", "eel", "test"), ("x" * 300 + ".jpg", "eel", "test")]
    with (top / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "split"), *rows])
    missing = {"gone.jpg": "No such file or directory", "x" * 300 + ".jpg": "File name too long"}
    return bad_files(top) | {str(top / name): reason for name, reason in missing.items()}


def load(top: Path, tmp_path: Path, **options):
    return catalog.load(
        SourceOptions("image_folder", data_dir=str(top), prepared_dir=str(tmp_path / "prepared"), **options)
    )


@pytest.mark.parametrize("with_manifest", [False, True])
def test_one_error_names_every_bad_file(corpus, tmp_path, with_manifest):
    bad = write_manifest(corpus) if with_manifest else bad_files(corpus)
    with pytest.raises(UserError) as error:
        load(corpus, tmp_path)
    message = str(error.value)
    assert "\n" not in message
    summary, _, named = message.partition(": ")
    assert summary == f"{len(bad)} images cannot be used"
    *reasons, hint = named.split("; ")
    assert hint == "--skip_bad_images leaves them out"
    joined = "; ".join(reasons)
    for path, reason in bad.items():
        assert f"{path}: " in joined
        assert reason in joined.split(f"{path}: ")[1].split(f"; {corpus}")[0]
    assert not list((tmp_path / "prepared").rglob("*.array_record*"))


@pytest.mark.parametrize("with_manifest", [False, True])
def test_bad_images_can_be_left_out(corpus, tmp_path, with_manifest):
    bad = write_manifest(corpus) if with_manifest else bad_files(corpus)
    data = load(corpus, tmp_path, skip_bad_images=True)
    assert {str(corpus / image.file) for image in data.skipped} == set(bad)
    sizes = data.train.class_sizes() | data.test.class_sizes()
    good = len(USABLE)
    assert sizes == {"ant": good, "bee": good, "cow": good, "dog": 1}
    words = data.skipped_in_words()
    total = 3 * good + 1 + len(bad)
    assert words.startswith(f"{len(bad)} of {total} images cannot be used and are left out")
    assert f"these classes shrank: 'bee' (train) to {good} of {good + 4}, 'cow' (test) to {good} of" in words
    assert "one image left, less than the two that make a pair: 'dog' (test)" in words
    assert ("these vanished: 'eel' (test)" in words) == with_manifest
    again = load(corpus, tmp_path, skip_bad_images=True)
    assert again.skipped == data.skipped
    check_pixels(data)


def check_pixels(data) -> None:
    """Checks that every remaining image can be used for training and testing, and is not black."""
    test = InferenceBatches(data.test, TestPreprocessing(16, 18), 8).of()
    sampler = MPerClassSampler(data.train.labels, 2, 12, seed=0)
    train = training_batches(data.train, sampler, TrainPreprocessing(image_size=16), seed=0)
    for batch in [*test, *(pixels for pixels, _ in train.take(1))]:
        assert batch.numpy().max(axis=(1, 2, 3)).min() > 50


def test_data_without_bad_images_is_prepared_under_another_name(corpus, tmp_path):
    load(corpus, tmp_path, skip_bad_images=True)
    with pytest.raises(UserError, match="images cannot be used"):
        load(corpus, tmp_path)
    for path in bad_files(corpus):
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)
    (corpus / "dog" / "more.png").write_bytes(bad_images.encode(bad_images.picture(), "PNG"))
    whole = load(corpus, tmp_path)
    assert (whole.skipped, whole.skipped_in_words()) == ((), None)
    assert load(corpus, tmp_path, skip_bad_images=True).skipped == ()
    prepared = [path.name for path in (tmp_path / "prepared" / "image_folder").iterdir() if path.is_dir()]
    assert sorted(name.split("-", 2)[2:] for name in prepared) == [[], *[["without_bad_images"]] * 2]


def test_a_split_without_usable_images_is_an_error(tmp_path):
    for label in LABELS:
        for index in range(2):
            path = tmp_path / "set" / label / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"" if label > "bee" else USABLE["plain.jpg"])
    with pytest.raises(UserError, match="4 images cannot be used: .*the file is empty$"):
        load(tmp_path / "set", tmp_path, skip_bad_images=True)


def test_the_error_names_a_file_without_read_permission(monkeypatch, tmp_path):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)  # Permissions do not stop the superuser.
    file = tmp_path / "a.jpg"
    file.touch()
    [(key, error)] = images.convert_all([(1, str(file), lambda: source_files.read_file(file))])
    assert (key, str(error)) == (1, f"{file}: cannot be read (Permission denied)")


def test_files_too_large_for_an_image_are_not_read(tmp_path):
    file = tmp_path / "a.jpg"
    with file.open("wb") as stream:
        stream.truncate(source_files.MAX_FILE_SIZE + 1)
    with pytest.raises(OSError, match="536,870,913 bytes; expected at most 536,870,912"):
        source_files.read_file(file)


def spoil_cub(top: Path) -> list[Path]:
    """Removes, empties and truncates an image each, in two classes of different splits; returns the files."""
    files = sorted(top.rglob("*.jpg"))
    gone, empty, cut = files[0], files[-1], files[-2]
    gone.unlink()
    empty.write_bytes(b"")
    cut.write_bytes(cut.read_bytes()[:-40])
    return [gone, empty, cut]


def test_bad_images_of_published_data_sets_are_reported_or_left_out(tmp_path):
    source = miniatures.write_cub(tmp_path / "birds", 4, 3)
    bad = spoil_cub(source)
    options = {"data_dir": str(source), "prepared_dir": str(tmp_path / "prepared"), "check_counts": False}
    with pytest.raises(UserError, match="^3 images cannot be used: ") as error:
        catalog.load(SourceOptions("cub", **options))
    assert all(str(path) in str(error.value) for path in bad)
    data = catalog.load(SourceOptions("cub", skip_bad_images=True, **options))
    assert {source / "CUB_200_2011" / image.file for image in data.skipped} == set(bad)
    assert (len(data.train), len(data.test)) == (5, 4)
    assert "'001.Bird_1' (train) to 2 of 3" in data.skipped_in_words()
    assert "less than the two that make a pair: '004.Bird_4' (test)" in data.skipped_in_words()


@pytest.mark.parametrize("name", ["emoji", "fashion_mnist"])
def test_skipping_is_refused_for_data_sets_without_image_files(name):
    with pytest.raises(UserError, match="--skip_bad_images: expected it with image_folder or a published"):
        catalog.check(SourceOptions(name, skip_bad_images=True))


def test_skipping_images_of_a_published_data_set_needs_its_source(tmp_path):
    with pytest.raises(UserError, match=r"^--dataset=cub needs --data_dir: "):
        catalog.check(SourceOptions("cub", prepared_dir=str(tmp_path), download=True, skip_bad_images=True))


SIGNATURES = (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"RIFF")
USABLE = bad_images.usable()


@functools.cache
def pixels_of(name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(upright_rgb(USABLE[name], name))))


def check_image(content: bytes) -> bytes | None:
    """Converts any bytes; returns the RGB image, or None after an error that names the file."""
    message = ""
    try:
        encoded = upright_rgb(content, "file")
    except ImageError as error:
        message = str(error)
    if message:
        assert message.startswith("file: ")
        return None
    image = Image.open(io.BytesIO(encoded))
    image.load()
    assert (image.mode, image.format in ("JPEG", "PNG")) == ("RGB", True)
    return encoded


@FUZZ
@given(st.binary(max_size=300), st.sampled_from(SIGNATURES))
def test_fuzzing_with_any_bytes(data, signature):
    check_image(signature + data)


@FUZZ
@given(st.sampled_from([*USABLE.values(), bad_images.bomb()]), st.data())
def test_fuzzing_with_damaged_images(original, data):
    """Removed, replaced and added bytes give an error that names the file, or a picture."""
    content = bytearray(original[: data.draw(st.integers(1, len(original)))])
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        if not content:
            break
    encoded = check_image(bytes(content))
    assert encoded is None or np.asarray(Image.open(io.BytesIO(encoded))).any()


@FUZZ
@given(st.sampled_from(list(USABLE)), st.floats(0, 0.999))
def test_fuzzing_with_truncated_images(name, share):
    """A truncated file gives an error, or all pixels of the complete one."""
    whole = USABLE[name]
    encoded = check_image(whole[: int(share * len(whole))])
    if encoded is not None:
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(encoded))), pixels_of(name))


ROWS = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from(["a.jpg", "b/c.jpg", "../x", "/etc/passwd", "a/../../x", "train", "test", " "]),
            st.text(max_size=12),
        ),
        max_size=5,
    ),
    max_size=8,
)


@FUZZ
@given(ROWS, st.booleans())
def test_fuzzing_with_manifests(tmp_path, rows, with_header):
    """Rows of any text give one line of error that names the manifest, or files below the folder."""
    output = io.StringIO()
    csv.writer(output).writerows([["file", "label", "split"], *rows] if with_header else rows)
    check_manifest(tmp_path, output.getvalue().encode("utf-8", "surrogatepass"))


@FUZZ
@given(st.binary(max_size=200), st.booleans())
def test_fuzzing_with_manifests_of_any_bytes(tmp_path, data, with_header):
    check_manifest(tmp_path, b"file,label,split\n" * with_header + data)


def check_manifest(folder: Path, content: bytes) -> None:
    (folder / manifest.FILE_NAME).write_bytes(content)
    entries, message = [], ""
    try:
        entries = manifest.read(folder)
    except LayoutError as error:
        message = str(error)
    assert bool(entries) != (str(folder / manifest.FILE_NAME) in message)
    assert "\n" not in message
    for entry in entries:
        assert entry.split in SPLITS
        assert os.path.commonpath([folder, os.path.abspath(folder / entry.file)]) == str(folder)


def test_a_manifest_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / manifest.FILE_NAME)
    with pytest.raises(LayoutError, match=r"manifest\.csv cannot be read \(no regular file\)"):
        manifest.read(tmp_path)
