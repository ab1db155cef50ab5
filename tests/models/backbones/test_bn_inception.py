"""BN-Inception against recorded outputs of the published network."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import bn_inception, registry
from ccp_dml.models.backbones.bn_inception import CeilMaxPooling
from ccp_dml.models.backbones.bn_inception_layout import convolutions
from ccp_dml.models.backbones.convert import convert_bn_inception
from ccp_dml.models.backbones.weights import assign_arrays
from tests.models import bn_inception_reference as reference

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return convert_bn_inception(reference.state())


def _network(arrays: dict[str, np.ndarray], *, frozen_norm: bool) -> tf.keras.Model:
    images = tf.keras.Input((None, None, 3))
    network = tf.keras.Model(
        images, bn_inception.bn_inception(images, frozen_norm=frozen_norm), name="bn_inception"
    )
    assign_arrays(network, arrays, "test")
    return network


@pytest.fixture(scope="module")
def frozen(arrays) -> tf.keras.Model:
    return _network(arrays, frozen_norm=True)


@pytest.fixture(scope="module")
def trainable(arrays) -> tf.keras.Model:
    return _network(arrays, frozen_norm=False)


def _recorded(side: int) -> np.ndarray:
    with np.load(reference.FILE) as file:
        return file[str(side)]


SIDES = [pytest.param(side, marks=pytest.mark.slow) if side > 100 else side for side in reference.SIDES]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("network", ["frozen", "trainable"])
def test_outputs_are_those_of_the_published_network(network, side, request):
    features = request.getfixturevalue(network)(reference.images(side)).numpy()
    assert features.std() > 0.5
    assert np.abs(features[..., :: reference.CHANNEL_STEP] - _recorded(side)).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("pretrainedmodels")),
    reason="needs PyTorch and pretrainedmodels",
)
def test_recorded_outputs_are_those_of_the_published_code(frozen):
    network = reference.published_network()
    for side in reference.SIDES:
        published = reference.published_features(network, side)
        assert np.abs(published[..., :: reference.CHANNEL_STEP] - _recorded(side)).max() < 2e-5
        assert np.abs(frozen(reference.images(side)).numpy() - published).max() < TOLERANCE


def test_number_of_weights(frozen, trainable):
    layers = list(convolutions())
    assert len(layers) == 69
    expected = sum(np.prod(layer.kernel_shape) + 5 * layer.outputs for layer in layers)
    assert frozen.count_params() == trainable.count_params() == expected
    assert len(frozen.trainable_variables) == 2 * 69
    assert len(trainable.trainable_variables) == 4 * 69


def test_gradients_reach_every_weight_and_frozen_normalisation_stays(frozen):
    with tf.GradientTape() as tape:
        features = frozen(reference.images(64), training=True)
        loss = tf.reduce_sum(tf.square(features))
    np.testing.assert_array_equal(features, frozen(reference.images(64), training=False))
    for variable, gradient in zip(
        frozen.trainable_variables, tape.gradient(loss, frozen.trainable_variables)
    ):
        assert np.abs(gradient).max() > 0, variable.name


@pytest.mark.parametrize("side", range(1, 12))
def test_pooling_counts_incomplete_windows(side):
    images = np.random.default_rng(side).uniform(size=(1, side, side + 1, 2)).astype(np.float32)
    starts = [range(0, max(1, size - 1), 2) for size in images.shape[1:3]]
    expected = [[images[0, y : y + 3, x : x + 3].max((0, 1)) for x in starts[1]] for y in starts[0]]
    known = CeilMaxPooling()(images)
    unknown = tf.function(CeilMaxPooling(), input_signature=[tf.TensorSpec([None, None, None, 2])])(images)
    np.testing.assert_array_equal(known[0], expected)
    np.testing.assert_array_equal(unknown, known)
    assert CeilMaxPooling().compute_output_shape(images.shape) == known.shape


def test_the_converted_file_is_used_as_imagenet_weights(arrays, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(
        ValueError,
        match=f"bn_inception_imagenet.npz in {tmp_path}/models, which python -m .*convert bn_inception",
    ):
        registry.check("bn_inception")
    (tmp_path / "models").mkdir()
    np.savez(tmp_path / "models" / "bn_inception_imagenet.npz", **arrays)
    backbone = registry.build("bn_inception", "imagenet", image_size=64)
    assert backbone.output_shape == (None, 2, 2, 1024)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
    blue_first = pixels[..., ::-1] - np.array([104, 117, 128], np.float32)
    expected = _network(arrays, frozen_norm=True)(blue_first)
    np.testing.assert_allclose(backbone(pixels), expected, atol=1e-4)
