"""The embedding model: shapes, weights and seeds, normalisation, precision, saving."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.layers import FrozenNormConvolution
from ccp_dml.models.embedding_model import (
    backbone_variables,
    batch_norm_variables,
    build_embedding_model,
    feature_model,
    head_variables,
)
from ccp_dml.models.layers import GlobalPooling, LipschitzNormalization, PixelScaling

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32)


def _small(**options) -> tf.keras.Model:
    return build_embedding_model("cifar_resnet", **{"embedding_size": 6, "image_size": 32, **options})


def _train_step(model: tf.keras.Model) -> None:
    optimizer = tf.keras.optimizers.SGD(0.1)

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(IMAGES, training=True)))
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))

    step()


def _ids(variables) -> set[int]:
    return {id(variable) for variable in variables}


def test_shapes_and_dtype():
    model = build_embedding_model("efficientnet_lite0", embedding_size=7, pooling="both")
    for size in ((64, 64), (40, 72)):
        embeddings = model(np.zeros((2, *size, 3), np.float32))
        assert embeddings.shape == (2, 7)
        assert embeddings.dtype == tf.float32
    assert model.output_shape == (None, 7)


@pytest.mark.parametrize("pooling", ["average", "max", "both"])
def test_the_embedding_is_a_linear_map_of_the_pooled_features(pooling):
    model = _small(pooling=pooling)
    features = registry.build("cifar_resnet")
    features.set_weights(model.get_layer("cifar_resnet").get_weights())
    maps = features(IMAGES).numpy().astype(np.float64)
    pooled = np.zeros((4, 256))
    if pooling in ("average", "both"):
        pooled += maps.mean(axis=(1, 2))
    if pooling in ("max", "both"):
        pooled += maps.max(axis=(1, 2))
    (kernel,) = head_variables(model)
    np.testing.assert_allclose(model(IMAGES), pooled @ kernel.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(feature_model(model)(IMAGES), pooled, rtol=1e-4, atol=1e-4)


def test_the_feature_model_shares_the_weights():
    model = _small()
    features = feature_model(model)
    before = features(IMAGES).numpy()
    _train_step(model)
    assert np.abs(features(IMAGES).numpy() - before).max() > 1e-4
    assert _ids(features.trainable_variables) == _ids(backbone_variables(model))


@pytest.mark.parametrize("backbone", ["cifar_resnet", "efficientnet_lite0"])
def test_equal_seeds_give_equal_models(backbone):
    def build(seed: int) -> list[np.ndarray]:
        # Weights must depend on the seed alone, not on what was drawn before.
        tf.random.normal([3])
        model = build_embedding_model(backbone, weights="random", embedding_size=5, seed=seed)
        return model.get_weights()

    one, same = build(3), build(3)
    for a, b in zip(one, same):
        np.testing.assert_array_equal(a, b)


def test_other_seeds_give_other_models():
    one, other = _small(seed=3), _small(seed=4)
    for kernel, other_kernel in zip(one.trainable_variables, other.trainable_variables):
        if "kernel" in kernel.name:
            assert np.abs(kernel - other_kernel).max() > 0.01


def test_no_two_layers_start_alike():
    kernels = [v.numpy().ravel()[:50] for v in _small().trainable_variables if "kernel" in v.name]
    for index, kernel in enumerate(kernels):
        for other in kernels[:index]:
            assert abs(np.corrcoef(kernel, other)[0, 1]) < 0.9


def test_variables_are_divided_into_backbone_and_head():
    model = _small()
    backbone, head = _ids(backbone_variables(model)), _ids(head_variables(model))
    assert not backbone & head
    assert backbone | head == _ids(model.trainable_variables)
    assert len(head) == 1


def test_normalisation_of_a_pretrained_backbone_is_never_changed():
    model = build_embedding_model("efficientnet_lite0", embedding_size=4, image_size=32)
    # Switching a backbone off and on, as a warm-up may do, must not thaw it.
    model.get_layer("efficientnet_lite0").trainable = False
    model.get_layer("efficientnet_lite0").trainable = True
    norms = batch_norm_variables(model)
    assert len(norms) == 49 * 4
    assert not _ids(norms) & _ids(model.trainable_variables)
    before = [variable.numpy() for variable in norms]
    kernels = [variable.numpy() for variable in backbone_variables(model)]
    _train_step(model)
    for variable, value in zip(norms, before):
        np.testing.assert_array_equal(variable, value)
    assert all(np.any(new != old) for new, old in zip(backbone_variables(model), kernels))
    np.testing.assert_array_equal(model(IMAGES, training=True), model(IMAGES, training=False))


def test_normalisation_of_random_weights_trains():
    model = _small()
    norms = batch_norm_variables(model)
    assert len(norms) == 4 * 19
    before = [variable.numpy() for variable in norms]
    _train_step(model)
    assert all(np.any(variable.numpy() != value) for variable, value in zip(norms, before))


@pytest.mark.parametrize("backbone", ["cifar_resnet", "efficientnet_lite0"])
def test_embeddings_are_float32_in_half_precision(half_precision, backbone):
    model = build_embedding_model(backbone, embedding_size=5, image_size=32)
    assert model.get_layer(backbone).output.dtype == tf.float16
    embeddings = model(IMAGES)
    assert embeddings.dtype == tf.float32
    assert all(variable.dtype == tf.float32 for variable in model.weights)
    assert np.isfinite(embeddings).all()


def test_half_precision_agrees_with_single(half_precision):
    half = build_embedding_model("efficientnet_lite0", embedding_size=5, image_size=32)
    tf.keras.mixed_precision.set_global_policy("float32")
    single = build_embedding_model("efficientnet_lite0", embedding_size=5, image_size=32)
    expected = single(IMAGES).numpy()
    assert np.abs(half(IMAGES) - expected).max() < 0.03 * np.abs(expected).max()


def test_xla_compiles_the_model():
    model = _small()
    compiled = tf.function(model, jit_compile=True)
    np.testing.assert_allclose(compiled(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-5)


def test_weights_and_checkpoints_round_trip(tmp_path):
    model, by_weights, by_checkpoint = _small(seed=1), _small(seed=2), _small(seed=3)
    model.save_weights(tmp_path / "model.weights.h5")
    by_weights.load_weights(tmp_path / "model.weights.h5")
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(model=by_checkpoint).read(path).assert_consumed()
    for again in (by_weights, by_checkpoint):
        np.testing.assert_array_equal(again(IMAGES), model(IMAGES))


def test_the_architecture_can_be_written_and_read():
    model = build_embedding_model("efficientnet_lite0", embedding_size=4)
    again = tf.keras.models.model_from_json(model.to_json())
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(again(IMAGES), model(IMAGES), rtol=1e-5, atol=1e-6)


_LOAD = """
import sys, numpy, tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
images = numpy.load(sys.argv[2])
numpy.save(sys.argv[3], model.signatures["serving_default"](images=tf.constant(images))["embedding"])
sys.exit("ccp_dml" in sys.modules)
"""


def test_a_saved_model_of_these_layers_needs_no_code_of_this_library(tmp_path):
    # All layers of an embedding model, each once: saving a whole network takes half a minute.
    images = tf.keras.Input((8, 8, 3), name="images")
    features = FrozenNormConvolution(None, 5, kernel_initializer="he_normal")(PixelScaling()(images))
    embeddings = tf.keras.layers.Dense(4)(GlobalPooling("both")(features))
    model = tf.keras.Model(images, LipschitzNormalization(name="embedding")(embeddings))
    tf.saved_model.save(model, str(tmp_path / "saved_model"))
    np.save(tmp_path / "images.npy", IMAGES[:, :8, :8])
    paths = [str(tmp_path / name) for name in ("saved_model", "images.npy", "embeddings.npy")]
    assert subprocess.run([sys.executable, "-c", _LOAD, *paths], check=False, cwd=tmp_path).returncode == 0
    expected = model(IMAGES[:, :8, :8])
    np.testing.assert_allclose(np.load(tmp_path / "embeddings.npy"), expected, rtol=1e-5, atol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="embedding_size is 0"):
        _small(embedding_size=0)
    with pytest.raises(ValueError, match="pooling is 'sum'"):
        _small(pooling="sum")
