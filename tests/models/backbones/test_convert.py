"""Converting published PyTorch weights: names, axes, refused files, the command."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import convert
from ccp_dml.models.backbones.bn_inception import bn_inception
from ccp_dml.models.backbones.convert import convert_bn_inception, convert_efficientnet_lite0, save
from tests.models import bn_inception_reference as reference


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return convert_bn_inception(reference.state())


def test_converting_does_not_import_tensorflow() -> None:
    program = "import sys, ccp_dml.models.backbones.convert; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_bn_inception_names_are_those_of_the_network(arrays):
    images = tf.keras.Input((None, None, 3))
    network = tf.keras.Model(images, bn_inception(images, frozen_norm=True))
    names = {variable.name.split(":")[0] for variable in network.weights}
    assert {name for name in arrays if "classifier" not in name} == names


def test_bn_inception_axes(arrays):
    state = reference.state()
    published = state["inception_3a_double_3x3_1.weight"]
    assert arrays["inception_3a_double_3x3_1/kernel"][1, 2, 3, 4] == published[4, 3, 1, 2]
    assert arrays["classifier/kernel"][7, 5] == state["last_linear.weight"][5, 7]
    np.testing.assert_array_equal(arrays["conv1_7x7_s2/gamma"], state["conv1_7x7_s2_bn.weight"])


def test_bn_inception_refuses_other_arrays():
    state = reference.state()
    counted = {**state, "conv2_3x3_bn.num_batches_tracked": np.array(1)}
    assert len(convert_bn_inception(counted)) == len(state)
    missing = {name: array for name, array in state.items() if name != "conv2_3x3.bias"}
    with pytest.raises(ValueError, match="1 arrays are not.*conv2_3x3.bias is missing"):
        convert_bn_inception(missing)
    with pytest.raises(ValueError, match="conv3.weight is unknown"):
        convert_bn_inception({**state, "conv3.weight": np.zeros(3)})
    with pytest.raises(ValueError, match=r"conv2_3x3.bias has the shape \(3,\), expected \(192,\)"):
        convert_bn_inception({**state, "conv2_3x3.bias": np.zeros(3)})


def test_the_command_says_what_is_wrong(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        "sys.argv", ["convert", "bn_inception", str(tmp_path / "in.pth"), str(tmp_path / "out.txt")]
    )
    with pytest.raises(SystemExit):
        convert.main()
    assert "ends in .npz" in capsys.readouterr().err


def test_a_file_that_is_refused_is_named_in_one_line(tmp_path, monkeypatch, capsys):
    def refuse(path):
        raise ValueError("Weights only load failed.\nAn explanation.\n")

    monkeypatch.setattr(convert, "read_state", refuse)
    monkeypatch.setattr("sys.argv", ["convert", "bn_inception", "in.pth", str(tmp_path / "out.npz")])
    with pytest.raises(SystemExit):
        convert.main()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("in.pth cannot be read (ValueError: Weights only load failed.)")


def _efficientnet_state() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    kernels = {
        "_conv_stem": ((4, 3, 3, 3), "_bn0"),
        "_blocks.0._depthwise_conv": ((4, 1, 5, 5), "_blocks.0._bn1"),
        "_blocks.0._project_conv": ((2, 4, 1, 1), "_blocks.0._bn2"),
        "_conv_head": ((6, 2, 1, 1), "_bn1"),
    }
    state = {"_fc.weight": rng.normal(size=(7, 6)), "_fc.bias": rng.normal(size=7)}
    for name, (shape, norm) in kernels.items():
        state[f"{name}.weight"] = rng.normal(size=shape)
        for statistic in ("weight", "bias", "running_mean", "running_var"):
            state[f"{norm}.{statistic}"] = rng.normal(size=shape[0])
        state[f"{norm}.num_batches_tracked"] = np.array(1)
    return state


def test_efficientnet_names_and_axes():
    state = _efficientnet_state()
    arrays = convert_efficientnet_lite0(state)
    assert len(arrays) == 2 + 4 * 5
    stem, depthwise = state["_conv_stem.weight"], state["_blocks.0._depthwise_conv.weight"]
    assert arrays["stem/kernel"][1, 2, 0, 3] == np.float32(stem[3, 0, 1, 2])
    assert arrays["block0_depthwise/kernel"][4, 1, 3, 0] == np.float32(depthwise[3, 0, 4, 1])
    assert arrays["classifier/kernel"][5, 6] == np.float32(state["_fc.weight"][6, 5])
    np.testing.assert_allclose(arrays["block0_project/gamma"], state["_blocks.0._bn2.weight"], rtol=1e-6)
    np.testing.assert_allclose(arrays["head/moving_variance"], state["_bn1.running_var"], rtol=1e-6)


def test_efficientnet_names_are_those_of_the_network(imagenet_backbone):
    names = {variable.name.split(":")[0] for variable in imagenet_backbone.weights}
    assert {
        name for name in convert_efficientnet_lite0(_efficientnet_state()) if "classifier" not in name
    } <= names


def test_efficientnet_refuses_unknown_arrays():
    with pytest.raises(ValueError, match="22 arrays were converted; the state dict has 23"):
        convert_efficientnet_lite0({**_efficientnet_state(), "_blocks.0._se_reduce.weight": np.zeros(3)})


def test_kernels_are_saved_in_half_precision_and_vectors_in_single(tmp_path):
    save(
        {"a/kernel": np.full((1, 2), 1 / 3, np.float32), "a/beta": np.ones(2, np.float32)},
        tmp_path / "w.npz",
    )
    with np.load(tmp_path / "w.npz") as file:
        assert file["a/kernel"].dtype == np.float16
        assert file["a/beta"].dtype == np.float32
