from __future__ import annotations

import h5py
import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.errors import UserError
from ccp_dml.experiment.weights import load_initial_weights
from ccp_dml.models.backbones.bn_inception import read_bn_inception
from ccp_dml.models.backbones.keras_applications import load_keras_h5
from ccp_dml.models.backbones.weights import check_hdf5


def small_model() -> tf.keras.Model:
    return tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=(3,))])


def spoil(path, kind: str) -> None:
    """Adds to an HDF5 file something that leads out of it, runs code, or promises too much."""
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
def test_weights_that_lead_elsewhere_are_refused_wherever_they_are_read(tmp_path, kind):
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
    """A file of a whole model holds the code of its Lambda layers; reading its weights leaves that alone."""
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
