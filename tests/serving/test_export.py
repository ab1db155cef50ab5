"""SavedModels: signatures, equality with the evaluation, replacement of directories."""

from __future__ import annotations

import io
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from ccp_dml.data.images import TestPreprocessing, test_image
from ccp_dml.geometry import normalize
from ccp_dml.serving.export import export_saved_model

PREPROCESSING = TestPreprocessing(image_size=20, shorter_side=24)
DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "serving.md"


@tf.keras.utils.register_keras_serializable("tests")
class OwnScaling(tf.keras.layers.Layer):
    """A custom layer, which a Keras file could not be loaded without."""

    def call(self, images):
        return images / 255.0


def make_model() -> tf.keras.Model:
    tf.keras.utils.set_random_seed(1)
    inputs = tf.keras.Input([None, None, 3])
    x = tf.keras.layers.Conv2D(8, 3, strides=2)(OwnScaling()(inputs))
    x = tf.keras.layers.BatchNormalization(moving_mean_initializer="random_normal")(x)
    x = tf.keras.layers.DepthwiseConv2D(3, activation="relu")(x)
    x = tf.keras.layers.Dropout(0.5)(tf.keras.layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(inputs, tf.keras.layers.Dense(6, use_bias=False)(x) * 20.0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = make_model()
    directory = str(tmp_path_factory.mktemp("export") / "saved_model")
    export_saved_model(model, directory, preprocessing=PREPROCESSING, normalization="lipschitz")
    return model, directory, tf.saved_model.load(directory).signatures


def evaluate(
    model: tf.keras.Model, images: list[np.ndarray | bytes], preprocessing: TestPreprocessing = PREPROCESSING
) -> np.ndarray:
    """The evaluation path: prepared one by one, embedded in one batch, normalised."""
    prepared = tf.stack([test_image(tf.constant(image), preprocessing) for image in images])
    return normalize(model(prepared, training=False), "lipschitz").numpy()


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def encode(image: np.ndarray, file_format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, file_format)
    return buffer.getvalue()


@pytest.mark.parametrize("shape", [(1, 24, 24), (3, 31, 50), (2, 7, 5), (4, 90, 33)])
def test_signatures_of_pixels_equal_the_evaluation(exported, shape):
    model, _, signatures = exported
    images = pixels(*shape, 3)
    expected = evaluate(model, list(images))
    assert np.linalg.norm(expected, axis=1).max() > 0.99  # some embeddings are normalised
    as_float = signatures["serving_default"](images=tf.constant(images, tf.float32))
    as_uint8 = signatures["serve_uint8"](images=tf.constant(images))
    assert list(as_float) == list(as_uint8) == ["embeddings"]
    np.testing.assert_allclose(as_float["embeddings"], expected, atol=1e-5)
    np.testing.assert_allclose(as_uint8["embeddings"], expected, atol=1e-5)


def test_the_signature_of_files_takes_all_sizes_and_kinds(exported):
    model, _, signatures = exported
    files = [
        encode(pixels(40, 60, 3), "JPEG"),
        encode(pixels(25, 21, 3), "PNG"),
        encode(pixels(64, 24), "JPEG"),
        encode(pixels(9, 9), "PNG"),
    ]
    actual = signatures["serve_encoded"](image_bytes=tf.constant(files))["embeddings"]
    np.testing.assert_allclose(actual, evaluate(model, files), atol=1e-5)


def test_padding_and_gray_preprocessing_are_part_of_the_model(tmp_path):
    model, preprocessing = make_model(), TestPreprocessing(20, None, padding=127.5, gray=True)
    directory = str(tmp_path / "saved_model")
    export_saved_model(model, directory, preprocessing=preprocessing, normalization="unit")
    signatures = tf.saved_model.load(directory).signatures
    images = pixels(2, 15, 26, 3)
    expected = evaluate(model, list(images), preprocessing)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    files = tf.constant([encode(image, "PNG") for image in images])
    for found in (
        signatures["serving_default"](images=tf.constant(images, tf.float32)),
        signatures["serve_uint8"](images=tf.constant(images)),
        signatures["serve_encoded"](image_bytes=files),
    ):
        np.testing.assert_allclose(found["embeddings"], expected, atol=1e-5)


def test_height_and_width_of_the_input_may_differ(tmp_path):
    model, preprocessing = make_model(), TestPreprocessing((24, 16), 18)
    export_saved_model(model, str(tmp_path / "model"), preprocessing=preprocessing, normalization="lipschitz")
    served = tf.saved_model.load(str(tmp_path / "model"))
    images = pixels(2, 40, 26, 3)
    expected = evaluate(model, list(images), preprocessing)
    found = served.signatures["serve_uint8"](images=tf.constant(images))["embeddings"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    files = tf.constant([encode(image, "PNG") for image in images])
    found = served.signatures["serve_encoded"](image_bytes=files)["embeddings"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_transparent_files_are_served(exported):
    model, _, signatures = exported
    image = pixels(30, 30, 4)
    image[..., 3] = 0  # transparent everywhere, so white for all hidden colours
    white = np.full([30, 30, 3], 255, np.uint8)
    actual = signatures["serve_encoded"](image_bytes=tf.constant([encode(image, "PNG")]))["embeddings"]
    np.testing.assert_allclose(actual, evaluate(model, [white]), atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (20, 30, 1), (39, 59, 2)])
def test_an_image_that_is_not_finite_has_an_embedding_of_nan(exported, value, place):
    """At the corners too, which the crop leaves out; the other images of the call are as without it."""
    _, _, signatures = exported
    images = pixels(3, 40, 60, 3).astype(np.float32)
    expected = signatures["serving_default"](images=tf.constant(images))["embeddings"].numpy()
    images[1][place] = value
    found = signatures["serving_default"](images=tf.constant(images))["embeddings"].numpy()
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[::2], expected[::2])


@pytest.mark.parametrize(
    ("signature", "inputs"),
    [
        ("serving_default", {"images": tf.zeros([0, 40, 50, 3])}),
        ("serve_uint8", {"images": tf.zeros([0, 40, 50, 3], tf.uint8)}),
        ("serve_encoded", {"image_bytes": tf.constant([], tf.string)}),
    ],
)
def test_no_images_give_no_embeddings(exported, signature, inputs):
    embeddings = exported[2][signature](**inputs)["embeddings"]
    assert (embeddings.shape, embeddings.dtype) == ((0, 6), tf.float32)


def test_signatures_are_declared_as_documented(exported):
    signatures = exported[2]
    assert set(signatures) == {"serving_default", "serve_uint8", "serve_encoded"}
    for name, spec in {
        "serving_default": tf.TensorSpec([None, None, None, 3], tf.float32, "images"),
        "serve_uint8": tf.TensorSpec([None, None, None, 3], tf.uint8, "images"),
        "serve_encoded": tf.TensorSpec([None], tf.string, "image_bytes"),
    }.items():
        assert signatures[name].structured_input_signature[1] == {spec.name: spec}
        assert signatures[name].structured_outputs["embeddings"].shape.as_list() == [None, 6]


def run_elsewhere(code: str, directory: str, **files: str) -> str:
    """Runs code in a process that is outside of this repository and cannot import it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_documented_example_runs_without_this_library(exported, tmp_path):
    model, directory, _ = exported
    os.symlink(directory, tmp_path / "saved_model")
    for name, seed in (("first.jpg", 1), ("second.png", 2)):
        Image.fromarray(pixels(30, 40, 3, seed=seed)).save(tmp_path / name)
    images = pixels(3, 30, 41, 3, seed=3)
    np.save(tmp_path / "images.npy", images)
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    more = """
import sys
import numpy as np
images = tf.constant(np.load("images.npy"), tf.float32)
np.save("embeddings.npy", model.signatures["serving_default"](images=images)["embeddings"])
assert not [name for name in sys.modules if name.split(".")[0] in ("ccp_dml", "tests")]
"""
    output = run_elsewhere(example + more, str(tmp_path))
    first, second = evaluate(model, [(tmp_path / name).read_bytes() for name in ("first.jpg", "second.png")])
    assert "(2, 6)" in output
    assert float(output.split()[-1]) == pytest.approx(np.linalg.norm(first - second), abs=1e-4)
    np.testing.assert_allclose(np.load(tmp_path / "embeddings.npy"), evaluate(model, list(images)), atol=1e-5)


def test_nothing_of_keras_is_saved(exported):
    directory = exported[1]
    files = {
        str(path.relative_to(directory)) for path in pathlib.Path(directory).rglob("*") if path.is_file()
    }
    assert files == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
    }
    assert b"OwnScaling" not in (pathlib.Path(directory) / "saved_model.pb").read_bytes()


def test_an_existing_directory_is_refused_and_not_changed(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    arguments = {"preprocessing": PREPROCESSING, "normalization": "unit"}
    with pytest.raises(FileExistsError, match="taken exists"):
        export_saved_model(make_model(), str(tmp_path / "taken"), **arguments)
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"
    export_saved_model(make_model(), str(tmp_path / "taken"), overwrite=True, **arguments)
    assert (tmp_path / "taken" / "saved_model.pb").exists()
    assert not (tmp_path / "taken" / "mine.txt").exists()
    assert os.listdir(tmp_path) == ["taken"]


def test_a_failed_export_leaves_the_former_directory(tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")

    def fail(module, directory, signatures):
        os.mkdir(directory)
        raise OSError("disk full")

    monkeypatch.setattr(tf.saved_model, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export_saved_model(
            make_model(),
            str(tmp_path / "taken"),
            preprocessing=PREPROCESSING,
            normalization="none",
            overwrite=True,
        )
    assert os.listdir(tmp_path) == ["taken"]
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"


def test_an_unknown_normalisation_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="normalization is 'l2'"):
        export_saved_model(
            make_model(), str(tmp_path / "new"), preprocessing=PREPROCESSING, normalization="l2"
        )
    assert os.listdir(tmp_path) == []


def test_export_prints_nothing(tmp_path):
    root = str(DOCUMENT.parents[1])  # the process imports from here
    code = f"""
import sys
sys.path.insert(0, {root!r})
import tensorflow as tf
from tests.serving.test_export import PREPROCESSING, export_saved_model, make_model
model = make_model()
export_saved_model(model, 'new', preprocessing=PREPROCESSING, normalization='unit')
"""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


@pytest.mark.parametrize("overwrite", [False, True])
def test_leftovers_of_a_killed_export_vanish_with_the_next_one(tmp_path, overwrite):
    for name in (".m.unfinished-a1b2", ".m.d", ".n.unfinished-a1b2", ".m[1].unfinished-a"):
        (tmp_path / name / "new").mkdir(parents=True)
    export_saved_model(
        make_model(),
        str(tmp_path / "m"),
        preprocessing=PREPROCESSING,
        normalization="none",
        overwrite=overwrite,
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "m",
        ".m.d",
        ".n.unfinished-a1b2",
        ".m[1].unfinished-a",
    }
