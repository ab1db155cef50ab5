"""Networks of `tf.keras.applications`, the user's functions and saved models as backbones."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.experiment.model import training_bytes
from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.applications import APPLICATIONS
from ccp_dml.models.embedding_model import backbone_variables, build_embedding_model

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)
SOURCE = """
import tensorflow as tf

def network(image_size):
    images = tf.keras.Input((*image_size, 3))
    x = tf.keras.layers.Rescaling(1 / 255)(images)
    x = tf.keras.layers.Conv2D(4, 3, strides=2, name="conv")(x)
    return tf.keras.Model(images, tf.keras.layers.BatchNormalization(name="norm")(x))

def none(image_size):
    return None

def two(image_size):
    images = tf.keras.Input((*image_size, 3))
    return tf.keras.Model(images, [images, images])

def no_argument():
    return network((32, 32))

constant = 3
"""


def own_model(side: int | None = None) -> tf.keras.Model:
    images = tf.keras.Input((side, side, 3))
    features = tf.keras.layers.Conv2D(4, 3, strides=2, name="conv")(images)
    return tf.keras.Model(images, tf.keras.layers.BatchNormalization(name="norm")(features))


@pytest.fixture
def module(tmp_path, monkeypatch) -> Path:
    """The file `own_network.py` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "own_network.py").write_text(SOURCE)
    yield tmp_path / "own_network.py"
    sys.modules.pop("own_network", None)


def test_the_table_names_every_network_of_keras():
    classes = {name for name in dir(tf.keras.applications) if name[0].isupper()}
    assert set(APPLICATIONS) == classes


@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV3Small",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("EfficientNetV2B0", "ConvNeXtTiny", "DenseNet121", "MobileNetV2", "VGG16")
        ),
    ],
)
def test_features_are_those_of_keras_on_pixels_that_keras_has_preprocessed(name, tmp_path):
    application = getattr(tf.keras.applications, name)
    theirs = application(include_top=False, weights=None, input_shape=(32, 32, 3))
    theirs.save_weights(tmp_path / "weights.h5")
    ours = registry.build(f"keras:{name}", str(tmp_path / "weights.h5"), image_size=32)
    preprocess = sys.modules[application.__module__].preprocess_input
    expected = theirs(preprocess(IMAGES.copy())).numpy()
    assert expected.std() > 0
    np.testing.assert_allclose(ours(IMAGES), expected, atol=1e-4 * np.abs(expected).max())
    norms = [x for x in ours.submodules if isinstance(x, tf.keras.layers.BatchNormalization)]
    assert not any(layer.trainable for layer in norms)


def test_imagenet_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    def offline(**_):
        raise Exception("URL fetch failure: no network")

    network = tf.keras.applications.MobileNetV3Small
    monkeypatch.setattr(
        tf.keras.applications,
        "MobileNetV3Small",
        lambda **options: offline() if options["weights"] else network(**options),
    )
    with pytest.raises(
        ValueError, match="cannot be downloaded .URL fetch failure: no network.*backbone_weights"
    ):
        registry.build("keras:MobileNetV3Small", image_size=32)


def test_the_users_function_is_the_backbone(module):
    model = build_embedding_model("own_network:network", embedding_size=3, image_size=32)
    assert model(IMAGES).shape == (2, 3)
    assert [x.name for x in backbone_variables(model)] == ["conv/kernel:0", "conv/bias:0"]
    trained = registry.build(
        "own_network:network", image_size=32, freeze_batch_norm=False, frozen_layers=["conv"]
    )
    assert [x.name for x in trained.trainable_variables] == ["norm/gamma:0", "norm/beta:0"]


@pytest.mark.parametrize("file", ["model.keras", "model.h5", "folder"])
@pytest.mark.parametrize("side", [None, 32])
def test_a_saved_model_is_the_backbone(tmp_path, file, side):
    saved = own_model(side)
    path = str(tmp_path / file)
    saved.save(path, **({"save_format": "tf"} if file == "folder" else {}))
    backbone = registry.build(path, image_size=32)
    np.testing.assert_allclose(backbone(IMAGES), saved(IMAGES), rtol=1e-5)
    assert [x.name for x in backbone.trainable_variables] == ["conv/kernel:0", "conv/bias:0"]
    assert backbone.get_layer("conv").get_output_at(-1).shape == (None, 15, 15, 4)


@pytest.mark.parametrize("side", [None, 32])
def test_shared_layers_count_once_in_the_estimate_of_memory(side):
    model = build_embedding_model(own_model(side), embedding_size=3, image_size=32)
    assert training_bytes(model) == 4 * (2 * 15 * 15 * 4 + 3)


def test_a_keras_model_is_the_backbone():
    network = own_model()
    model = build_embedding_model(network, embedding_size=3, image_size=32)
    assert backbone_variables(model)[0] is network.get_layer("conv").kernel
    with pytest.raises(ValueError, match="Expected a tf.keras.Model"):
        build_embedding_model(tf.keras.layers.Dense(2), embedding_size=3, image_size=32)


@pytest.mark.parametrize(
    "value, message",
    [
        ("keras:ConvNextTiny", "no network 'ConvNextTiny'; .*ConvNeXtTiny"),
        ("missing_module:network", "there is no module 'missing_module'"),
        ("own_network:missing", "no function 'missing'"),
        ("own_network:constant", "no function 'constant'"),
        ("own_network:none", "Expected a tf.keras.Model. Received: None"),
        ("own_network:two", "Expected one output"),
        ("own_network:no_argument", "own_network:no_argument failed: TypeError"),
        ("none.keras", "there is no such file"),
        ("own_network.py/", "there is no such file|expected a folder"),
        ("empty", "no saved_model.pb"),
        ("plain", "was not written by Keras"),
        ("broken.keras", "cannot be loaded as a Keras model"),
        ("weights.h5", "holds weights alone"),
        ("lambda.h5", "code of a Lambda layer"),
        ("lambda.keras", "cannot be loaded as a Keras model: .*[Ll]ambda"),
        ("large.keras", "does not take images of the shape .None, 32, 32, 3."),
    ],
)
def test_backbones_that_cannot_be_used(module, value, message):
    if value == "empty":
        Path(value).mkdir()
    if value == "plain":
        tf.saved_model.save(tf.Module(), value)
    if value == "broken.keras":
        Path(value).write_text("no archive")
    if value == "weights.h5":
        own_model().save_weights(value)
    if value.startswith("lambda"):
        tf.keras.Sequential([tf.keras.Input((32, 32, 3)), tf.keras.layers.Lambda(lambda x: x)]).save(value)
    if value == "large.keras":
        own_model(64).save(value)
    with pytest.raises(ValueError, match=message):
        registry.build(value, image_size=32)


def test_the_examples_of_the_documentation_run(tmp_path, monkeypatch):
    text = (Path(__file__).parents[3] / "docs" / "backbones.md").read_text()
    own, use = (block.split("```")[0] for block in text.split("```python\n")[1:3])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("own_network.py").write_text(own)
    names: dict[str, object] = {}
    exec(use, names)
    assert names["model"].output_shape == (None, 128)
    assert registry.build("own_network:network", image_size=64).output_shape == (None, 31, 31, 16)
    sys.modules.pop("own_network")
