"""The embedding model: a backbone, global pooling, a linear map to the embedding; crops at test time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.kinds import ImageSize
from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.layers import FrozenNormConvolution, layer_seeds
from ccp_dml.models.layers import GlobalPooling

_FEATURES = "features"
_EMBEDDING = "embedding"


# Ranges and seed of the random crops at test time.
_CROP_AREA = (0.16, 1.0)
_CROP_ASPECT = (0.75, 4 / 3)
_CROP_SEED = 0


def build_embedding_model(
    backbone: str | tf.keras.Model,
    *,
    weights: str | None = None,
    embedding_size: int,
    pooling: str = "average",
    image_size: ImageSize | None = None,
    seed: int = 0,
    **options: Any,
) -> tf.keras.Model:
    """Builds a model that embeds images.

    The model scales the pixels itself. Features and embeddings are computed in float32 under every precision
    policy.

    Args:
        backbone: a value of `--backbone`, see `ccp_dml.models.backbones.registry`; or any Keras model from
            RGB images [B, H, W, 3] in 0..255 to features [B, h, w, F] or [B, F], whose layers are shared.
        weights: name of the backbone's weights, or a file; None for its default weights, or the model's.
        embedding_size: number of dimensions D.
        pooling: one of `ccp_dml.models.options.POOLINGS`.
        image_size: side of the images, or height and width, if known, which lets XLA compile the model; None
            for any H and W.
        seed: seed of all weights that are not loaded. Equal arguments give equal weights.
        **options: further options of `registry.build`: `freeze_batch_norm`, `layer`, `frozen_layers`,
            `options`, `load`; the first three for a Keras model.

    Returns:
        A model from float32 RGB images [B, H, W, 3] in 0..255 to raw (not normalised) embeddings, float32
        [B, D].

    Raises:
        ValueError: if a backbone, weights, layer or pooling is unknown, a size is too small, or the file of
            the weights is missing.

    Example:
        >>> model = build_embedding_model("cifar_resnet", embedding_size=16)
        >>> model(tf.zeros([2, 32, 32, 3])).shape
        TensorShape([2, 16])
    """
    if embedding_size < 1:
        raise ValueError(f"embedding_size is {embedding_size}; expected at least 1")
    backbone_seed, embedding_seed = (layer_seed for layer_seed, _ in zip(layer_seeds(seed), range(2)))
    if isinstance(backbone, str):
        trunk = registry.build(backbone, weights, image_size=image_size, seed=backbone_seed, **options)
    elif weights is None:
        trunk = registry.from_model(backbone, image_size=image_size, **options)
    else:
        raise ValueError(f"weights is {weights!r}; expected None, as the model has its own")
    images = tf.keras.Input(trunk.input_shape[1:], name="images")
    features = GlobalPooling(pooling, name=_FEATURES)(trunk(images))
    embeddings = tf.keras.layers.Dense(
        embedding_size,
        use_bias=False,
        kernel_initializer=tf.keras.initializers.GlorotUniform(seed=embedding_seed),
        dtype="float32",
        name=_EMBEDDING,
    )(features)
    return tf.keras.Model(images, embeddings, name=f"{trunk.name}_embedding")


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


def with_test_crops(model: tf.keras.Model, count: int) -> tf.keras.Model:
    """Makes a model that averages the raw embeddings of an image and of its crops.

    Args:
        model: a model from float32 images [B, S, S, 3] to raw embeddings [B, D].
        count: number of crops N; for 0 the model itself is returned.

    Returns:
        A model with the same inputs, outputs and weights. It costs N + 1 times as much.

    Raises:
        ValueError: if the number is negative, or the model's image size is not known.
    """
    if count < 0:
        raise ValueError(f"count of test crops is {count}; expected at least 0")
    if count == 0:
        return model
    if None in model.input_shape[1:]:
        raise ValueError(f"input_shape is {model.input_shape}; test crops need images of a known size")
    images = tf.keras.Input(model.input_shape[1:], name="images")
    embeddings = model(AuxiliaryCrops(count, name="auxiliary_crops")(images))
    mean = MeanOfCrops(count, name="mean_of_crops")(embeddings)
    return tf.keras.Model(images, mean, name=f"{model.name}_with_crops")


def crop_boxes(count: int) -> npt.NDArray[np.float32]:
    """Returns the boxes of the crops, always the same; fewer boxes are the first ones of more.

    Area and aspect ratio have the distribution of training crops, the position is uniform. About half of the
    boxes are mirrored: their right border is left of the left one.

    Args:
        count: number of boxes N.

    Returns:
        float32 [N, 4]: top, left, bottom, right in units of the side.
    """
    generator = np.random.default_rng(_CROP_SEED)
    boxes: list[tuple[float, float, float, float]] = []
    while len(boxes) < count:
        area, aspect, *place, mirror = generator.uniform(size=5)
        area = _CROP_AREA[0] + area * (_CROP_AREA[1] - _CROP_AREA[0])
        aspect = _CROP_ASPECT[0] + aspect * (_CROP_ASPECT[1] - _CROP_ASPECT[0])
        height, width = np.sqrt(area / aspect), np.sqrt(area * aspect)
        if max(height, width) > 1:
            continue
        top, left = place[0] * (1 - height), place[1] * (1 - width)
        sides = (left, left + width) if mirror < 0.5 else (left + width, left)
        boxes.append((top, sides[0], top + height, sides[1]))
    return np.array(boxes, np.float32).reshape(-1, 4)


class _CropsLayer(tf.keras.layers.Layer):
    """A layer for images and N crops of each; in float32 under every precision policy.

    Attributes:
        count: N, at least 1.
    """

    def __init__(self, count: int, **kwargs: Any) -> None:
        """Creates the layer.

        Args:
            count: number of crops.
            **kwargs: `name` of a Keras layer.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.count = count

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer."""
        return {**super().get_config(), "count": self.count}


@tf.keras.utils.register_keras_serializable("ccp_dml")
class AuxiliaryCrops(_CropsLayer):
    """Appends N crops of each image to a batch: [B, S, S, 3] to [(N + 1) * B, S, S, 3]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the images, then the first crop of each, then the second, and so on; resized bilinearly."""
        batch = tf.shape(inputs)[0]
        boxes = tf.repeat(tf.constant(crop_boxes(self.count)), batch, axis=0)
        crops = tf.image.crop_and_resize(
            inputs, boxes, tf.tile(tf.range(batch), [self.count]), inputs.shape[1:3]
        )
        return tf.concat([inputs, crops], axis=0)


@tf.keras.utils.register_keras_serializable("ccp_dml")
class MeanOfCrops(_CropsLayer):
    """Averages the embeddings of each image and its crops: [(N + 1) * B, D] to [B, D]."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Returns the means."""
        return tf.reduce_mean(tf.reshape(inputs, [self.count + 1, -1, inputs.shape[-1]]), axis=0)
