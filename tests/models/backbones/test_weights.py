"""Files of backbone weights: npz files, and HDF5 files that are refused."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.errors import UserError
from ccp_dml.experiment.model import load_initial_weights
from ccp_dml.models.backbones.bn_inception_h5 import read_bn_inception
from ccp_dml.models.backbones.keras_applications import load_keras_h5
from ccp_dml.models.backbones.weights import check_hdf5, load_weights, read_arrays


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
    with pytest.raises(FileNotFoundError, match=f"nothing.npz is missing; expected in {tmp_path}"):
        load_weights(model, tmp_path / "nothing.npz")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dense/bias": None}, "1 arrays are missing.*dense/bias"),
        ({"other/kernel": np.ones(2)}, "1 are unknown.*other/kernel"),
        ({"dense/kernel": np.ones((2, 3))}, r"dense/kernel has the shape \(2, 3\); expected \(3, 2\)"),
    ],
)
def test_files_of_another_model_are_refused(model, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        load_weights(model, _save(tmp_path / "weights.npz", **changes))


def test_files_of_another_kind_are_refused(tmp_path):
    text = tmp_path / "weights.npz"
    text.write_text("weights")
    with pytest.raises(ValueError, match="expected an npz file"):
        read_arrays(text)
    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, weights=np.array([object()]))
    with pytest.raises(ValueError, match="expected an npz file"):
        read_arrays(pickled)


def small_model() -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])


def spoil(path, kind: str) -> None:
    """Adds something to an HDF5 file that points to another file, runs code, or declares too much."""
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["secret"] = np.ones(4, np.float32)
    with h5py.File(path, "a") as file:
        if kind == "external link":
            file["dense/more"] = h5py.ExternalLink(str(other), "/secret")
        elif kind == "soft link":
            file["dense/more"] = h5py.SoftLink("/nowhere")
        elif kind == "external array":
            file.create_dataset("dense/more", (4,), np.float32, external=[(str(other), 0, 16)])
        elif kind == "virtual array":
            layout = h5py.VirtualLayout((4,), np.float32)
            layout[:] = h5py.VirtualSource(str(other), "secret", shape=(4,))
            file.create_virtual_dataset("dense/more", layout)
        elif kind == "plug-in":
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_chunk((4,))
            properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
            space = h5py.h5s.create_simple((4,))
            h5py.h5d.create(file.id, b"more", h5py.h5t.IEEE_F32LE, space, properties)
        else:
            file.create_dataset("dense/more", (2**20, 2**20), np.float32, chunks=(1, 8))


KINDS = {
    "external link": "is a link",
    "soft link": "is a link",
    "external array": "lies in another file",
    "virtual array": "lies in another file",
    "plug-in": r"needs a plug-in of HDF5 \(filter 32015\)",
    "too large": "says it has 4,398,046,511,104 bytes",
}


@pytest.mark.parametrize("kind", KINDS)
def test_unsafe_hdf5_files_are_refused_by_all_readers(tmp_path, kind):
    path, model = tmp_path / "w.h5", small_model()
    model.save_weights(path)
    check_hdf5(path)
    spoil(path, kind)
    with pytest.raises(ValueError, match=KINDS[kind]):
        check_hdf5(path)
    with pytest.raises(ValueError, match=KINDS[kind]):
        load_keras_h5(model, path)
    with pytest.raises(ValueError, match=KINDS[kind]):
        read_bn_inception(path)
    with pytest.raises(UserError, match=KINDS[kind]):
        load_initial_weights(str(path), model)


def test_compression_that_is_part_of_hdf5_is_allowed(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.create_dataset("a", data=np.ones(100), compression="gzip", shuffle=True, fletcher32=True)
    check_hdf5(tmp_path / "w.h5")


def test_a_circle_of_groups_ends(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["a/b/c"] = np.ones(3)
        file["a/b/again"] = file["a"]
    check_hdf5(tmp_path / "w.h5")


def test_code_in_a_model_file_is_not_run(tmp_path):
    """A model file holds the code of its Lambda layers; reading the weights does not run it."""
    marker = tmp_path / "ran"
    command = f"open({str(marker)!r}, 'w').close()"
    evil = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(2, input_shape=(3,), name="dense"),
            tf.keras.layers.Lambda(lambda x, command=command: (exec(command), x)[1], output_shape=(2,)),
        ]
    )
    marker.unlink()  # Building the model ran it once.
    evil.save(tmp_path / "model.h5")
    marker.unlink(missing_ok=True)
    model = small_model()
    load_initial_weights(str(tmp_path / "model.h5"), model)
    np.testing.assert_array_equal(model.get_weights()[0], evil.get_weights()[0])
    assert not marker.exists()
