"""The embedding model: a backbone, global pooling, and a linear map to the embedding."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.layers import FrozenNormConvolution, layer_seeds
from ccp_dml.models.layers import GlobalPooling

_FEATURES = "features"
_EMBEDDING = "embedding"


def build_embedding_model(
    backbone: str,
    *,
    weights: str | None = None,
    embedding_size: int,
    pooling: str = "average",
    image_size: int | None = None,
    seed: int = 0,
    **options: Any,
) -> tf.keras.Model:
    """Builds a model that embeds images.

    The model scales the pixels itself. Features and embeddings are computed in float32 under every precision
    policy.

    Args:
        backbone: name of a backbone, see `ccp_dml.models.backbones.registry`.
        weights: name of the backbone's weights, or a file; None for its default weights.
        embedding_size: number of dimensions D.
        pooling: one of `ccp_dml.models.options.POOLINGS`.
        image_size: side of the images if it is known, which lets XLA compile the model; None for any H and W.
        seed: seed of all weights that are not loaded. Equal arguments give equal weights.
        **options: further options of `registry.build`: `freeze_batch_norm`, `layer`, `frozen_layers`,
            `options`, `load`.

    Returns:
        A model from float32 RGB images [B, H, W, 3] in 0..255 to raw (not normalised) embeddings, float32
        [B, D].

    Raises:
        ValueError: if a backbone, weights, layer or pooling is unknown, a size is too small, or the file of
            the weights is missing.
    """
    if embedding_size < 1:
        raise ValueError(f"embedding_size is {embedding_size}; expected at least 1")
    backbone_seed, embedding_seed = (layer_seed for layer_seed, _ in zip(layer_seeds(seed), range(2)))
    trunk = registry.build(backbone, weights, image_size=image_size, seed=backbone_seed, **options)
    images = tf.keras.Input(trunk.input_shape[1:], name="images")
    features = GlobalPooling(pooling, name=_FEATURES)(trunk(images))
    embeddings = tf.keras.layers.Dense(
        embedding_size,
        use_bias=False,
        kernel_initializer=tf.keras.initializers.GlorotUniform(seed=embedding_seed),
        dtype="float32",
        name=_EMBEDDING,
    )(features)
    return tf.keras.Model(images, embeddings, name=f"{backbone}_embedding")


def feature_model(model: tf.keras.Model) -> tf.keras.Model:
    """Returns a model from images to the pooled features, float32 [B, F], with the same weights.

    Args:
        model: a model of `build_embedding_model`.
    """
    return tf.keras.Model(model.input, model.get_layer(_FEATURES).output, name=f"{model.name}_features")


def head_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Trainable variables of the head: the linear map to the embedding, and the power of GeM pooling."""
    return [
        variable for name in (_FEATURES, _EMBEDDING) for variable in model.get_layer(name).trainable_variables
    ]


def backbone_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Trainable variables of the backbone: all but those of the head."""
    head = {id(variable) for variable in head_variables(model)}
    return [variable for variable in model.trainable_variables if id(variable) not in head]


def batch_norm_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """All variables of batch normalisation, trainable or not: scales, offsets and statistics."""
    variables = []
    for layer in model.submodules:
        if isinstance(layer, tf.keras.layers.BatchNormalization):
            variables += layer.weights
        elif isinstance(layer, FrozenNormConvolution):
            variables += layer.batch_norm_weights
    return variables


def synchronize_batch_norm(model: tf.keras.Model) -> int:
    """Makes batch normalisation that is trained use the statistics of the global batch.

    Call it under a distribution strategy: each layer then sums its inputs and their squares over the
    replicas. The variance is the difference E[x²] - E[x]², which loses digits where a mean is large relative
    to its deviation. The moving variance is the one of the n values of the batch; the fused kernels of one
    device multiply it by n / (n - 1).

    Returns:
        The number of such layers.
    """
    layers = [
        layer
        for layer in model.submodules
        if isinstance(layer, tf.keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in layers:
        layer.synchronized, layer.fused = True, False
    return len(layers)
