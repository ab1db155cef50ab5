"""The embedding model: a backbone, global pooling, and a linear map to the embedding."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.frozen_norm_convolution import FrozenNormConvolution
from ccp_dml.models.backbones.seeds import layer_seeds
from ccp_dml.models.pooling import GlobalPooling

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

    Pixel scaling is inside. Features and embeddings are computed in float32 under every precision policy.

    Args:
        backbone: name of a backbone, see `ccp_dml.models.backbones.registry`.
        weights: name of the backbone's weights, or a file; None for its default ones.
        embedding_size: number of dimensions D.
        pooling: one of `ccp_dml.models.pooling.POOLINGS`.
        image_size: side of the images if it is known, which lets XLA compile the model; None for any H and W.
        seed: of every weight that is not loaded. Models of equal arguments have equal weights.
        **options: further ones of `registry.build`: `freeze_batch_norm`, `layer`, `frozen_layers`, `options`,
            `load`.

    Returns:
        A model from float32 RGB images [B, H, W, 3] in 0..255 to raw (un-normalised) embeddings, float32
        [B, D].

    Raises:
        ValueError: if there is no such backbone, weights, layer or pooling, if a size is too small, or if the
            file of the weights is missing.
    """
    if embedding_size < 1:
        raise ValueError(f"embedding_size is {embedding_size}; at least 1 is expected.")
    backbone_seed, embedding_seed = (seed_ for seed_, _ in zip(layer_seeds(seed), range(2)))
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
    """The part of an embedding model up to the pooled features; it shares the weights.

    Args:
        model: of `build_embedding_model`.

    Returns:
        A model from images to float32 features [B, F].
    """
    return tf.keras.Model(model.input, model.get_layer(_FEATURES).output, name=f"{model.name}_features")


def head_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Trainable variables of the head: the linear map to the embedding, and those of the pooling, if any."""
    return [
        variable for name in (_FEATURES, _EMBEDDING) for variable in model.get_layer(name).trainable_variables
    ]


def backbone_variables(model: tf.keras.Model) -> list[tf.Variable]:
    """Trainable variables of the backbone, which are all but those of the head."""
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
    """Lets batch normalisation that is trained use the statistics of the global batch.

    To be called under a distribution strategy, on whose replicas each layer exchanges sums of its inputs and
    of their squares. The variance is their difference, E[x²] - E[x]², and so loses digits where a mean is
    large beside its deviation; and the moving variance is that of the n values of the batch, where the fused
    kernels of one device multiply it by n / (n - 1).

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
