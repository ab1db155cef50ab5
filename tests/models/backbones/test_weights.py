from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones.weights import load_weights, read_arrays


@pytest.fixture
def model() -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,), name="dense")])


def _save(path, **changes):
    arrays = {"dense/kernel": np.ones((3, 2), np.float16), "dense/bias": np.arange(2.0), **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_every_weight_is_set_and_a_classifier_ignored(model, tmp_path):
    path = _save(tmp_path / "weights.npz", **{"classifier/kernel": np.ones((2, 9))})
    load_weights(model, path)
    np.testing.assert_array_equal(model(np.ones((1, 3), np.float32)), [[3.0, 4.0]])
    assert all(array.dtype == np.float32 for array in read_arrays(path).values())


def test_a_missing_file_is_named(model, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"nothing.npz is missing.*{tmp_path}"):
        load_weights(model, tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dense/bias": None}, "1 arrays are missing.*dense/bias"),
        ({"other/kernel": np.ones(2)}, "1 are unknown.*other/kernel"),
        ({"dense/kernel": np.ones((2, 3))}, r"dense/kernel has the shape \(2, 3\); \(3, 2\)"),
    ],
)
def test_files_of_another_model_are_refused(model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_weights(model, _save(tmp_path / "weights.npz", **changes))


def test_files_of_another_kind_are_refused(tmp_path):
    text = tmp_path / "weights.npz"
    text.write_text("weights")
    with pytest.raises(ValueError, match="npz file is expected"):
        read_arrays(text)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, weights=np.array([object()]))
    with pytest.raises(ValueError, match="npz file is expected"):
        read_arrays(pickled)
