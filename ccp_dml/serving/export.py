"""Exports of embedding models as SavedModels that need only TensorFlow."""

from __future__ import annotations

import glob
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml import files
from ccp_dml.data.images import TestPreprocessing, test_image
from ccp_dml.geometry import check_normalization, normalize
from ccp_dml.kinds import height_and_width
from ccp_dml.serving.images import decode_upright_rgb

# Images of a call that are decoded at the same time.
IMAGES_AT_A_TIME = 4

Outputs = dict[str, tf.Tensor]


def export_saved_model(
    model: tf.keras.Model,
    directory: str,
    *,
    preprocessing: TestPreprocessing,
    normalization: str,
    overwrite: bool = False,
) -> None:
    """Writes a model with the test preprocessing and the normalisation inside.

    Signatures (`N` ≥ 0, `H` and `W` any size; in the first two, all images of a call have the same size):

    * `serving_default`: `images` float32 RGB [N, H, W, 3] in 0…255 → `embeddings` float32 [N, D]; NaN for an
      image that has a pixel of NaN or infinity
    * `serve_uint8`: `images` uint8 RGB [N, H, W, 3] → `embeddings`
    * `serve_encoded`: `image_bytes` string [N], JPEG, PNG or GIF files of any sizes → `embeddings`

    The directory appears complete or not at all.

    Args:
        model: float32 RGB [N, *image_size, 3] in 0…255 → raw embeddings [N, D].
        directory: directory to write; its parents are created.
        preprocessing: the preprocessing of the evaluation.
        normalization: the normalisation of embeddings.
        overwrite: replace an existing directory.

    Raises:
        FileExistsError: if `directory` exists and `overwrite` is false; nothing is changed.
        ValueError: if the normalisation is unknown.
    """
    check_normalization(normalization)
    directory = os.path.abspath(directory)
    if os.path.lexists(directory) and not overwrite:
        raise FileExistsError(f"{directory} exists; expected a new directory, or overwrite=True")
    module = tf.Module()
    # Only variables: a Keras object in the module would be saved with all its functions and metadata.
    module.weights = list(model.variables)
    signatures = _signatures(model, preprocessing, normalization)
    os.makedirs(os.path.dirname(directory), exist_ok=True)
    with _replaced(directory, overwrite) as temporary, _quiet():
        tf.saved_model.save(module, temporary, signatures=signatures)


def _signatures(
    model: tf.keras.Model, preprocessing: TestPreprocessing, normalization: str
) -> dict[str, Callable[..., Outputs]]:
    sides = height_and_width(preprocessing.image_size)
    prepared = tf.TensorSpec([*sides, 3], tf.float32)

    # A separate function, so that the network is traced and written once, not for every signature.
    @tf.function(input_signature=[tf.TensorSpec([None, *sides, 3], tf.float32)])
    def embed_prepared(inputs: tf.Tensor) -> tf.Tensor:
        count = tf.shape(inputs)[0]
        # Convolutions of an empty batch fail on CPUs: a black image stands in and is removed again.
        inputs = tf.pad(inputs, [[0, tf.cast(tf.equal(count, 0), tf.int32)], [0, 0], [0, 0], [0, 0]])
        return normalize(model(inputs, training=False), normalization)[:count]

    def embed(prepare: Callable[[tf.Tensor], tf.Tensor], images: tf.Tensor) -> Outputs:
        inputs = tf.map_fn(
            prepare, images, fn_output_signature=prepared, parallel_iterations=IMAGES_AT_A_TIME
        )
        return {"embeddings": embed_prepared(inputs)}

    def prepare_encoded(encoded: tf.Tensor) -> tf.Tensor:
        return test_image(decode_upright_rgb(encoded), preprocessing)

    # AutoGraph would rewrite the preprocessing without effect, and take longer than all the rest.
    @tf.function(
        input_signature=[tf.TensorSpec([None, None, None, 3], tf.float32, "images")], autograph=False
    )
    def serve_float(images: tf.Tensor) -> Outputs:
        embeddings = embed(lambda image: test_image(image, preprocessing), images)["embeddings"]
        # Crops may leave out such pixels, and activations may turn them into finite numbers.
        is_finite = tf.reduce_all(tf.math.is_finite(images), axis=[1, 2, 3])
        return {"embeddings": tf.where(is_finite[:, tf.newaxis], embeddings, np.nan)}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, "images")], autograph=False)
    def serve_uint8(images: tf.Tensor) -> Outputs:
        return embed(lambda image: test_image(image, preprocessing), images)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "image_bytes")], autograph=False)
    def serve_encoded(image_bytes: tf.Tensor) -> Outputs:
        return embed(prepare_encoded, image_bytes)

    return {"serving_default": serve_float, "serve_uint8": serve_uint8, "serve_encoded": serve_encoded}


@contextmanager
def _replaced(directory: str, overwrite: bool) -> Iterator[str]:
    """Context that gives a path to write to, beside `directory`, and moves it there after success."""
    parent, name = os.path.split(directory)
    prefix = f".{name}.unfinished-"  # A shorter one could be that of other hidden folders.
    for leftover in Path(parent).glob(f"{glob.escape(prefix)}*"):  # Of a process that was killed.
        shutil.rmtree(leftover, ignore_errors=True)
    workspace = tempfile.mkdtemp(prefix=prefix, dir=parent)
    fresh, former = os.path.join(workspace, "new"), os.path.join(workspace, "old")
    try:
        yield fresh
        files.to_disk(Path(fresh))
        if overwrite and os.path.lexists(directory):
            os.rename(directory, former)
        try:
            os.rename(fresh, directory)
        except OSError:
            if os.path.lexists(former):
                os.rename(former, directory)
            raise
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Context that hides TensorFlow's messages on saving, but not its errors."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
