"""The networks of `tf.keras.applications`, with seeded weights."""

from __future__ import annotations

import os
from collections.abc import Callable

import tensorflow as tf

from ccp_dml.models.backbones.layers import layer_seeds
from ccp_dml.models.backbones.specs import IMAGENET, IMAGENET_MEAN, IMAGENET_STD, cache_folder
from ccp_dml.models.backbones.weights import check_hdf5, reading


def resnet50(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies ResNet50 (He et al., CVPR 2016), with the stride in the first convolution of a block.

    Args:
        images: BGR images [B, H, W, 3] in 0..255 minus their mean; H and W at least 32.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.

    Returns:
        Feature map [B, ceil(H / 32), ceil(W / 32), 2048].
    """
    return _apply(tf.keras.applications.ResNet50, images, frozen_norm, seed)


def resnet50_v2(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies ResNet50V2 (He et al., ECCV 2016), with pre-activation.

    Args:
        images: RGB images [B, H, W, 3] in -1..1; H and W at least 32.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.

    Returns:
        Feature map [B, ceil(H / 32), ceil(W / 32), 2048].
    """
    return _apply(tf.keras.applications.ResNet50V2, images, frozen_norm, seed)


def efficientnet_b0(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0) -> tf.Tensor:
    """Applies EfficientNet-B0 (Tan and Le, ICML 2019), without dropping blocks at random.

    Args:
        images: RGB images [B, H, W, 3] in 0..255, which the network scales itself; H and W at least 32.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.

    Returns:
        Feature map [B, ceil(H / 32), ceil(W / 32), 1280].
    """
    return _apply(tf.keras.applications.EfficientNetB0, images, frozen_norm, seed, drop_connect_rate=0.0)


def application(images: tf.Tensor, *, frozen_norm: bool, seed: int = 0, application: str) -> tf.Tensor:
    """Applies any network, without its classifier.

    Blocks and units are not dropped at random: a run could not resume with the same random numbers.

    Args:
        images: images [B, H, W, 3] as the network expects them.
        frozen_norm: True to never train batch normalisation.
        seed: seed of the initial weights.
        application: name of the class.

    Returns:
        Feature map [B, h, w, F].
    """
    return _apply(getattr(tf.keras.applications, application), images, frozen_norm, seed)


def load_imagenet(model: tf.keras.Model, application: str) -> None:
    """Sets the ImageNet weights, which Keras downloads unless it has them.

    Raises:
        ValueError: if they cannot be downloaded.
    """
    try:
        published = getattr(tf.keras.applications, application)(include_top=False, weights=IMAGENET)
    except Exception as error:  # Keras raises `Exception` itself if a download fails.
        raise ValueError(
            f"the imagenet weights of {application} cannot be downloaded ({str(error).splitlines()[0]}); "
            f"connect to the network, put the file into {cache_folder()}, or give other --backbone_weights"
        ) from error
    model.set_weights(published.get_weights())


def load_keras_h5(model: tf.keras.Model, path: str | os.PathLike[str]) -> None:
    """Sets the weights of a model from an HDF5 file in the layout of Keras.

    Raises:
        ValueError: if it is not such a file, or belongs to another network.
    """
    with reading(f"{path} does not belong to the model {model.name!r}"):
        check_hdf5(path)
        model.load_weights(str(path))


def finish(model: tf.keras.Model) -> None:
    """Sets the pixel scaling of EfficientNet-B0 to B7 to the one of its training.

    Keras stores the deviations of ImageNet as variances, and corrects that by another layer only in models
    whose weights it loads itself.
    """
    for layer in model.layers:
        if isinstance(layer, tf.keras.layers.Normalization):
            layer.adapt_mean.assign(IMAGENET_MEAN)
            layer.adapt_variance.assign([value**2 for value in IMAGENET_STD])
            layer.finalize_state()


def _apply(
    application: Callable[..., tf.keras.Model],
    images: tf.Tensor,
    frozen_norm: bool,
    seed: int,
    **options: float,
) -> tf.Tensor:
    network = application(include_top=False, weights=None, input_tensor=images, **options)
    seeds = layer_seeds(seed)
    for layer in network.layers:
        _draw_kernels(layer, seeds.__next__)
        if isinstance(layer, tf.keras.layers.Dropout):
            layer.rate = 0.0
        if frozen_norm and isinstance(layer, tf.keras.layers.BatchNormalization):
            layer.trainable = False
    return network.output


def _draw_kernels(layer: tf.keras.layers.Layer, next_seed: Callable[[], int]) -> None:
    """Draws the kernels of a layer with seeds, which Keras does not give to its layers."""
    for initializer_name, kernel_name in (
        ("depthwise_initializer", "depthwise_kernel"),
        ("pointwise_initializer", "pointwise_kernel"),
        ("kernel_initializer", "kernel"),
    ):
        initializer, kernel = getattr(layer, initializer_name, None), getattr(layer, kernel_name, None)
        if initializer is not None and kernel is not None:
            seeded = type(initializer).from_config({**initializer.get_config(), "seed": next_seed()})
            kernel.assign(seeded(kernel.shape, kernel.dtype))
