"""A backbone that costs nothing, for tests of many runs."""

from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.specs import IMAGENET_MEAN, BackboneSpec


def tiny(images: tf.Tensor, *, frozen_norm: bool, seed: int) -> tf.Tensor:
    """One convolution: scaled images [B, H, W, 3] to a feature map [B, H / 8, W / 8, 6]."""
    assert not frozen_norm
    kernel = tf.keras.initializers.GlorotUniform(seed=seed)
    return tf.keras.layers.Conv2D(6, 8, 8, activation="relu", kernel_initializer=kernel)(images)


def register(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `--backbone=tiny` known for a while."""
    spec = BackboneSpec(
        target=f"{__name__}:tiny",
        default_image_size=32,
        pixel_scaling={"mean": IMAGENET_MEAN},
    )
    monkeypatch.setitem(registry.BACKBONES, "tiny", spec)
