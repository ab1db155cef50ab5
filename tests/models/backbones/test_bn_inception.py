"""BN-Inception: against recorded outputs of the published network, and its ways to get weights."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import bn_inception, convert, registry
from ccp_dml.models.backbones.bn_inception import (
    CeilMaxPooling,
    Convolution,
    convolutions,
    read_bn_inception,
)
from ccp_dml.models.backbones.convert import convert_bn_inception
from ccp_dml.models.backbones.weights import assign_arrays
from tests.models import bn_inception_reference as reference

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    return convert_bn_inception(reference.state())


def _network(arrays: dict[str, np.ndarray], *, frozen_norm: bool) -> tf.keras.Model:
    images = tf.keras.Input((None, None, 3))
    network = tf.keras.Model(
        images, bn_inception.bn_inception(images, frozen_norm=frozen_norm), name="bn_inception"
    )
    assign_arrays(network, arrays, "test")
    return network


@pytest.fixture(scope="module")
def frozen(arrays) -> tf.keras.Model:
    return _network(arrays, frozen_norm=True)


@pytest.fixture(scope="module")
def trainable(arrays) -> tf.keras.Model:
    return _network(arrays, frozen_norm=False)


def _recorded(side: int) -> np.ndarray:
    with np.load(reference.FILE) as file:
        return file[str(side)]


SIDES = [pytest.param(side, marks=pytest.mark.slow) if side > 100 else side for side in reference.SIDES]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("network", ["frozen", "trainable"])
def test_outputs_are_those_of_the_published_network(network, side, request):
    features = request.getfixturevalue(network)(reference.images(side)).numpy()
    assert features.std() > 0.5
    assert np.abs(features[..., :: reference.CHANNEL_STEP] - _recorded(side)).max() < TOLERANCE


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("torch") and importlib.util.find_spec("pretrainedmodels")),
    reason="needs PyTorch and pretrainedmodels",
)
def test_the_published_code_says_so_too(frozen):
    network = reference.published_network()
    for side in reference.SIDES:
        published = reference.published_features(network, side)
        assert np.abs(published[..., :: reference.CHANNEL_STEP] - _recorded(side)).max() < 2e-5
        assert np.abs(frozen(reference.images(side)).numpy() - published).max() < TOLERANCE


def test_number_of_weights(frozen, trainable):
    layers = list(convolutions())
    assert len(layers) == 69
    expected = sum(np.prod(layer.kernel_shape) + 5 * layer.outputs for layer in layers)
    assert frozen.count_params() == trainable.count_params() == expected
    assert len(frozen.trainable_variables) == 2 * 69
    assert len(trainable.trainable_variables) == 4 * 69


def test_gradients_reach_every_weight_and_frozen_normalisation_stays(frozen):
    with tf.GradientTape() as tape:
        features = frozen(reference.images(64), training=True)
        loss = tf.reduce_sum(tf.square(features))
    np.testing.assert_array_equal(features, frozen(reference.images(64), training=False))
    for variable, gradient in zip(
        frozen.trainable_variables, tape.gradient(loss, frozen.trainable_variables)
    ):
        assert np.abs(gradient).max() > 0, variable.name


@pytest.mark.parametrize("side", range(1, 12))
def test_pooling_counts_incomplete_windows(side):
    images = np.random.default_rng(side).uniform(size=(1, side, side + 1, 2)).astype(np.float32)
    starts = [range(0, max(1, size - 1), 2) for size in images.shape[1:3]]
    expected = [[images[0, y : y + 3, x : x + 3].max((0, 1)) for x in starts[1]] for y in starts[0]]
    known = CeilMaxPooling()(images)
    unknown = tf.function(CeilMaxPooling(), input_signature=[tf.TensorSpec([None, None, None, 2])])(images)
    np.testing.assert_array_equal(known[0], expected)
    np.testing.assert_array_equal(unknown, known)
    assert CeilMaxPooling().compute_output_shape(images.shape) == known.shape


class TestConversion:
    def test_names_are_those_of_the_network(self, arrays, frozen):
        names = {variable.name.split(":")[0] for variable in frozen.weights}
        assert {name for name in arrays if "classifier" not in name} == names

    def test_axes(self, arrays):
        state = reference.state()
        published = state["inception_3a_double_3x3_1.weight"]
        assert arrays["inception_3a_double_3x3_1/kernel"][1, 2, 3, 4] == published[4, 3, 1, 2]
        assert arrays["classifier/kernel"][7, 5] == state["last_linear.weight"][5, 7]
        np.testing.assert_array_equal(arrays["conv1_7x7_s2/gamma"], state["conv1_7x7_s2_bn.weight"])

    def test_other_files_are_refused(self):
        state = reference.state()
        counted = {**state, "conv2_3x3_bn.num_batches_tracked": np.array(1)}
        assert len(convert_bn_inception(counted)) == len(state)
        missing = {name: array for name, array in state.items() if name != "conv2_3x3.bias"}
        with pytest.raises(ValueError, match="1 arrays are not.*conv2_3x3.bias is missing"):
            convert_bn_inception(missing)
        with pytest.raises(ValueError, match="conv3.weight is unknown"):
            convert_bn_inception({**state, "conv3.weight": np.zeros(3)})
        with pytest.raises(ValueError, match=r"conv2_3x3.bias has the shape \(3,\), \(192,\) is expected"):
            convert_bn_inception({**state, "conv2_3x3.bias": np.zeros(3)})

    def test_the_command_says_what_is_wrong(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setattr(
            "sys.argv", ["convert", "bn_inception", str(tmp_path / "in.pth"), str(tmp_path / "out.txt")]
        )
        with pytest.raises(SystemExit):
            convert.main()
        assert "ends in .npz" in capsys.readouterr().err

    def test_a_file_that_is_refused_is_named_in_one_line(self, tmp_path, monkeypatch, capsys):
        def refuse(path):
            raise ValueError("Weights only load failed.\nAn explanation.\n")

        monkeypatch.setattr(convert, "read_state", refuse)
        monkeypatch.setattr("sys.argv", ["convert", "bn_inception", "in.pth", str(tmp_path / "out.npz")])
        with pytest.raises(SystemExit):
            convert.main()
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.endswith("in.pth cannot be read by PyTorch (ValueError: Weights only load failed.)")

    def test_the_file_is_found_under_its_name_as_imagenet_weights(self, arrays, tmp_path, monkeypatch):
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        with pytest.raises(
            ValueError,
            match=f"bn_inception_imagenet.npz in {tmp_path}/models, which python -m .*convert bn_inception",
        ):
            registry.check("bn_inception")
        (tmp_path / "models").mkdir()
        np.savez(tmp_path / "models" / "bn_inception_imagenet.npz", **arrays)
        backbone = registry.build("bn_inception", "imagenet", image_size=64)
        assert backbone.output_shape == (None, 2, 2, 1024)
        pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.float32)
        blue_first = pixels[..., ::-1] - np.array([104, 117, 128], np.float32)
        expected = _network(arrays, frozen_norm=True)(blue_first)
        np.testing.assert_allclose(backbone(pixels), expected, atol=1e-4)


LAYOUT = [
    Convolution("a", 3, 4, 3),
    Convolution("b", 4, 5),
    Convolution("c", 4, 5, 3),
    Convolution("d", 5, 5),
]


def _keras_model(*, nested: bool, use_bias: bool = True) -> tf.keras.Model:
    """A network of the convolutions of LAYOUT: one after the other two branches, whose names say nothing."""
    layers = tf.keras.layers

    def unit(inputs, outputs, size, epsilon=0.02):
        convolved = layers.Conv2D(outputs, size, padding="same", use_bias=use_bias)(inputs)
        return layers.ReLU()(layers.BatchNormalization(epsilon=epsilon)(convolved))

    images = tf.keras.Input((None, None, 3))
    stem = unit(images, 4, 3)
    # Made in another order than they are concatenated in.
    long = unit(unit(stem, 5, 3), 5, 1)
    short = unit(stem, 5, 1)
    network = tf.keras.Model(images, layers.Concatenate()([short, layers.MaxPooling2D(2, 1, "same")(long)]))
    generator = np.random.default_rng(0)
    for variable in network.weights:
        variable.assign(generator.uniform(size=variable.shape))
    if not nested:
        return network
    outer = tf.keras.Input((8, 8, 3))
    return tf.keras.Model(outer, layers.Dense(2)(layers.GlobalAveragePooling2D()(network(outer))))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
class TestKerasFile:
    @pytest.mark.parametrize("nested, use_bias", [(False, True), (True, True), (False, False)])
    def test_weights_are_found_by_the_graph(self, nested, use_bias, tmp_path, monkeypatch):
        model = _keras_model(nested=nested, use_bias=use_bias)
        model.save(tmp_path / "model.h5")
        monkeypatch.setattr(bn_inception, "convolutions", lambda: iter(LAYOUT))
        arrays = read_bn_inception(tmp_path / "model.h5")

        network = next(layer for layer in model.layers if hasattr(layer, "layers")) if nested else model
        convolved = {layer.kernel.shape: layer for layer in network.layers if hasattr(layer, "kernel")}
        norms = [layer for layer in network.layers if hasattr(layer, "gamma")]
        for expected in LAYOUT:
            convolution = convolved[expected.kernel_shape]
            (norm,) = (layer for layer in norms if layer.input.node is convolution.output.node)
            np.testing.assert_array_equal(arrays[f"{expected.name}/kernel"], convolution.kernel)
            np.testing.assert_array_equal(
                arrays[f"{expected.name}/bias"], convolution.bias if use_bias else np.zeros(expected.outputs)
            )
            for weight in ("gamma", "beta", "moving_mean"):
                np.testing.assert_array_equal(arrays[f"{expected.name}/{weight}"], getattr(norm, weight))
            # The same result with this library's epsilon.
            variance = arrays[f"{expected.name}/moving_variance"] + 1e-5
            np.testing.assert_allclose(variance, norm.moving_variance + 0.02, rtol=1e-6)

    def test_the_network_itself_is_read_in_its_order(self, trainable):
        config = {"config": trainable.get_config()}
        names = [name for name, _ in bn_inception._convolutions(bn_inception._layers(config))]
        assert names == [layer.name for layer in convolutions()]

    def test_other_files_are_refused(self, tmp_path, monkeypatch):
        text = tmp_path / "text.h5"
        text.write_text("weights")
        with pytest.raises(ValueError, match="cannot be read as a Keras model file"):
            read_bn_inception(text)
        _keras_model(nested=False).save(tmp_path / "model.h5")
        with pytest.raises(ValueError, match="has 4 convolutions.*BN-Inception has 69"):
            read_bn_inception(tmp_path / "model.h5")
        other = [LAYOUT[0], LAYOUT[2], LAYOUT[1], LAYOUT[3]]
        monkeypatch.setattr(bn_inception, "convolutions", lambda: iter(other))
        with pytest.raises(ValueError, match=r"should be c, has the shape \(1, 1, 4, 5\); \(3, 3, 4, 5\)"):
            read_bn_inception(tmp_path / "model.h5")
