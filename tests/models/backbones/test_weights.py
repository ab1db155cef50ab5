"""Files of backbone weights: npz files, and HDF5 files that are refused."""

from __future__ import annotations

import zipfile

import h5py
import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.errors import UserError
from ccp_dml.experiment.model import build_model, load_initial_weights
from ccp_dml.models.backbones import weights
from ccp_dml.models.backbones.bn_inception_h5 import read_bn_inception
from ccp_dml.models.backbones.keras_applications import load_keras_h5
from ccp_dml.models.backbones.weights import check_hdf5, load_weights, read_arrays, save_weights
from ccp_dml.models.options import ModelOptions


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


def declared(path, count: int) -> None:
    """Writes an npz file of a few kilobytes that unpacks to `count` zeros of float32."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.npy", "w") as member:
        header = {"descr": "<f4", "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(member, header)
        for begin in range(0, count, 2**16):
            member.write(bytes(4 * min(2**16, count - begin)))


@pytest.mark.parametrize("kind", ["one array", "many arrays", "no archive"])
def test_sizes_are_checked_before_arrays_are_read(tmp_path, monkeypatch, kind):
    path, expected = tmp_path / "w.npz", r"it unpacks to .* bytes; expected at most 10,000"
    if kind == "one array":
        declared(path, 4_000)
    elif kind == "many arrays":
        np.savez_compressed(path, **{f"dense/{index}": np.zeros(100) for index in range(20)})
    else:
        with path.open("wb") as file:
            np.save(file, np.zeros(10_000))
        expected = "File is not a zip file"
    monkeypatch.setattr(weights, "LARGEST_CONTENT", 10_000)
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("arrays were read"))
    with pytest.raises(ValueError, match=expected):
        read_arrays(path)


@pytest.mark.parametrize(
    "arrays", [{"a": np.ones(2, np.int64)}, {"a": np.array(["x"])}, {"a": np.ones(2) * 1j}]
)
def test_arrays_of_other_types_are_refused(tmp_path, arrays):
    np.savez(tmp_path / "w.npz", **arrays)
    with pytest.raises(ValueError, match=r"w\.npz cannot .*: a has the type .*; expected a float type"):
        read_arrays(tmp_path / "w.npz")


def damaged(content: bytes, seed: int) -> bytes:
    """Flips bits, overwrites, removes or adds bytes at random places."""
    generator = np.random.default_rng(seed)
    place, other = generator.integers(0, len(content), 2)
    if seed % 4 == 0:
        return content[:place] + bytes([content[place] ^ 1 << seed % 8]) + content[place + 1 :]
    if seed % 4 == 1:
        return content[:place] + generator.bytes(20) + content[place + 20 :]
    if seed % 4 == 2:
        return content[:place] + content[place + other % 50 :]
    return content[:place]


READERS = {"npz": load_weights, "h5": load_keras_h5, "model.h5": lambda model, path: read_bn_inception(path)}


@pytest.mark.parametrize("kind", READERS)
def test_damaged_files_are_errors_of_one_line(tmp_path, kind):
    """Most damages are noticed; readers of the formats raise errors of many types."""
    layers = [
        tf.keras.layers.Conv2D(4, 3, input_shape=(8, 8, 3), kernel_initializer="ones", name="convolution"),
        tf.keras.layers.BatchNormalization(name="norm"),
    ]
    model = tf.keras.Sequential(layers, name="network")
    path = tmp_path / f"file.{kind}"
    if kind == "npz":
        save_weights(model, path)
    else:
        (model.save if kind == "model.h5" else model.save_weights)(path)
    content, messages = path.read_bytes(), []
    for seed in range(120):
        path.write_bytes(damaged(content, seed))
        try:
            READERS[kind](model, path)
        except ValueError as error:
            messages.append(str(error))
    assert len(messages) > 60
    for message in messages:
        assert message.startswith(str(path))
        assert "\n" not in message
        assert len(message) > len(str(path)) + 10


@pytest.mark.parametrize("name", ["w.h5", "w.npz"])
@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x05\x06", bytes(5000)], ids=range(4))
def test_a_damaged_file_as_backbone_weights(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    options = ModelOptions(backbone="bn_inception", backbone_weights=str(tmp_path / name))
    with pytest.raises(
        UserError, match=rf"^--backbone=bn_inception --backbone_weights=.*{name} .*: "
    ) as error:
        build_model(options, 32, seed=0)
    assert "\n" not in str(error.value)


def test_the_content_of_hdf5_files_is_limited(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for index in range(8):
            file.create_dataset(f"a/{index}", (1000,), np.float32, compression="gzip")
        file["again"] = file["a"]
    monkeypatch.setattr(weights, "LARGEST_CONTENT", 32_000)
    check_hdf5(tmp_path / "w.h5")
    monkeypatch.setattr(weights, "LARGEST_CONTENT", 31_999)
    with pytest.raises(ValueError, match="says it has 4,000 bytes, and 32,000 with the arrays before it"):
        check_hdf5(tmp_path / "w.h5")


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
