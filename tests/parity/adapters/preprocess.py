"""Resizing, cropping and scaling of test images."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.data.images import TestPreprocessing, resize_shorter_side, test_image
from ccp_dml.models.layers import PixelScaling
from tests.parity.comparison import Case, Comparison

# Largest error recorded for float32, in units of the full pixel range.
_ATOL = 1e-6


def compare(case: Case) -> list[Comparison]:
    """Compares resized images and results (or some pixels and moments), or only resized sizes."""
    if "input_hw" in case.arrays:
        return [_compare_sizes(case)]
    config = case.config
    image = _image(case)
    side = config["short_axis_initial_resize"]
    height, width = config["out_image_size"]
    preprocessing = TestPreprocessing(image_size=(height, width), shorter_side=side, antialias=False)
    pixels = test_image(tf.constant(image), preprocessing)
    layer = _pixel_scaling(config)
    result = layer(pixels).numpy()
    atol = _ATOL * abs(config["image_scaler"]) / min(layer.std)

    resized = resize_shorter_side(tf.constant(image), side).numpy()
    comparisons = [
        Comparison("resized_shape", np.array(resized.shape), np.array(config["resized_shape"]), rtol=0)
    ]
    if "resized" in case.arrays:
        comparisons.append(Comparison("resized", resized / 255, case.arrays["resized"], atol=_ATOL))
    if "out_rows_cols" not in config:
        return [*comparisons, Comparison("out", result, case.arrays["out"], atol=atol)]
    every = int(re.search(r"::(\d+)", config["out_rows_cols"])[1])
    return [
        *comparisons,
        Comparison("out_sub", result[::every, ::every], case.arrays["out_sub"], atol=atol),
        Comparison("out_mean", result.mean((0, 1), np.float64), case.arrays["out_mean"], atol=atol),
        Comparison("out_std", result.std((0, 1), np.float64), case.arrays["out_std"], atol=atol),
    ]


def _pixel_scaling(config: dict[str, Any]) -> PixelScaling:
    return PixelScaling(
        mean=config["mean"] if config.get("recenter", True) else (0.5, 0.5, 0.5),
        std=config["std"] if config.get("std_normalize", False) else (1.0, 1.0, 1.0),
        scale=config["image_scaler"],
        reverse_channels=config["reverse_channels"],
    )


def _image(case: Case) -> np.ndarray:
    """Returns the image of a case; all cases `imN_*` have the same."""
    if "image" in case.arrays:
        return case.arrays["image"]
    prefix = case.name.split("_")[0] + "_"
    [shared] = [key for key in case.file if key.startswith(prefix) and key.endswith("/image")]
    return case.file[shared]


def _compare_sizes(case: Case) -> Comparison:
    side = case.config["short_axis_initial_resize"]
    resize = tf.function(
        lambda size: tf.shape(resize_shorter_side(tf.zeros(tf.concat([size, [1]], 0), tf.uint8), side))[:2],
        input_signature=[tf.TensorSpec([2], tf.int32)],
    )
    sizes = [resize(size).numpy() for size in case.arrays["input_hw"].astype(np.int32)]
    return Comparison("resized_hw", np.array(sizes), case.arrays["resized_hw"], rtol=0)
