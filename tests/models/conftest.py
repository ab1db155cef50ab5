"""Fixtures of the tests of models."""

from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry


@pytest.fixture(scope="session")
def imagenet_backbone() -> tf.keras.Model:
    """EfficientNet-Lite0 with ImageNet weights, for any image size; do not train it."""
    return registry.build("efficientnet_lite0", "imagenet")


@pytest.fixture
def half_precision():
    """Sets the mixed_float16 policy for the duration of a test."""
    before = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy(before)
