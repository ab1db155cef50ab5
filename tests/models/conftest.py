"""Models that are built once for all tests of this package."""

from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry


@pytest.fixture(scope="session")
def imagenet_backbone() -> tf.keras.Model:
    """EfficientNet-Lite0 with ImageNet weights, for any image size. Not to be trained."""
    return registry.build("efficientnet_lite0", "imagenet")


@pytest.fixture
def half_precision():
    """The mixed_float16 policy, for the duration of a test."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy(before)
