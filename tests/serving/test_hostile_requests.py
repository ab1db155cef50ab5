"""Requests of any bytes: an error for the request, and a process that continues to serve."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow.core.protobuf import saved_model_pb2

from ccp_dml.data.images import TestPreprocessing
from ccp_dml.serving.export import export_saved_model
from tests.datasets import bad_images

FUZZ = settings(max_examples=40, deadline=None, derandomize=True, database=None)
GOOD = bad_images.encode(bad_images.picture(), "JPEG")
SEEDS = [GOOD, *(bad_images.encode(bad_images.picture(), kind) for kind in ("PNG", "GIF", "BMP", "WEBP"))]
SIGNATURES = (b"", b"\xff\xd8\xff", b"\xff\xd8\xff\xe1\x00\x20Exif\x00\x00", b"\x89PNG\r\n\x1a\n", b"GIF89a")


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> str:
    model = tf.keras.Sequential(
        [tf.keras.layers.GlobalAveragePooling2D(input_shape=(16, 16, 3)), tf.keras.layers.Dense(4)]
    )
    directory = str(tmp_path_factory.mktemp("export") / "saved_model")
    export_saved_model(model, directory, preprocessing=TestPreprocessing(16, 18), normalization="unit")
    return directory


@pytest.fixture(scope="module")
def embed(directory):
    model = tf.saved_model.load(directory)
    signature = model.signatures["serve_encoded"]
    expected = signature(image_bytes=tf.constant([GOOD]))["embeddings"].numpy()

    def check(content: bytes) -> None:
        """Serves the bytes, with an embedding of unit length or an error, then a good image as before."""
        try:
            found = signature(image_bytes=tf.constant([content]))["embeddings"].numpy()
        except tf.errors.OpError:
            found = None
        if found is not None:
            np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-4)
        again = signature(image_bytes=tf.constant([GOOD]))["embeddings"].numpy()
        np.testing.assert_array_equal(again, expected)

    check.model = model  # Keeps its variables alive.
    return check


@FUZZ
@given(data=st.binary(max_size=200), signature=st.sampled_from(SIGNATURES))
def test_any_bytes_give_an_embedding_or_an_error(embed, data, signature):
    embed(signature + data)


@FUZZ
@given(original=st.sampled_from(SEEDS), data=st.data())
def test_damaged_images_give_an_embedding_or_an_error(embed, original, data):
    content = bytearray(original[: data.draw(st.integers(1, len(original)))])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    embed(bytes(content))


def test_a_decompression_bomb_is_an_error(embed):
    embed(bad_images.bomb())


def test_a_bad_image_fails_only_its_request(directory):
    signature = (model := tf.saved_model.load(directory)).signatures["serve_encoded"]
    with pytest.raises(tf.errors.InvalidArgumentError):
        signature(image_bytes=tf.constant([GOOD, b"no image"]))
    assert signature(image_bytes=tf.constant([GOOD, GOOD]))["embeddings"].shape == (2, 4)
    del model


def test_the_graph_has_no_python_and_reads_no_files(directory):
    saved = saved_model_pb2.SavedModel()
    with open(f"{directory}/saved_model.pb", "rb") as file:
        saved.ParseFromString(file.read())
    [graph] = saved.meta_graphs
    nodes = [*graph.graph_def.node]
    for function in graph.graph_def.library.function:
        nodes += function.node_def
    operations = {node.op for node in nodes}
    assert "DecodeJpeg" in operations
    assert not [name for name in operations if "PyFunc" in name]
    # Only operations that restore and save the variables read or write files.
    files = {name for name in operations if "File" in name or name in ("SaveV2", "RestoreV2")}
    assert files <= {"SaveV2", "RestoreV2", "ShardedFilename", "MergeV2Checkpoints"}
