from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import tensorflow as tf

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.cifar_resnet import cifar_resnet
from ccp_dml.models.backbones.convert import convert_efficientnet_lite0 as convert
from ccp_dml.models.backbones.convert import save
from ccp_dml.models.backbones.weights import read_arrays

TIGER_CAT, EGYPTIAN_CAT, ESPRESSO = 282, 285, 967


def _classify(backbone: tf.keras.Model, photograph: np.ndarray) -> np.ndarray:
    """Class probabilities of the central 224 pixels, after the central square was resized to 256."""
    side = min(photograph.shape[:2])
    image = tf.image.resize_with_crop_or_pad(tf.cast(photograph, tf.float32), side, side)
    image = tf.image.resize_with_crop_or_pad(tf.image.resize(image, (256, 256)), 224, 224)
    features = tf.reduce_mean(backbone(image[tf.newaxis]), axis=[1, 2])
    arrays = read_arrays(registry.weights_path("efficientnet_lite0", "imagenet"))
    return tf.nn.softmax(features @ arrays["classifier/kernel"] + arrays["classifier/bias"])[0].numpy()


class TestEfficientNetLite0:
    def test_a_cat_is_classified_as_a_cat(self, imagenet_backbone):
        probabilities = _classify(imagenet_backbone, skimage.data.chelsea())
        assert probabilities[TIGER_CAT] == pytest.approx(0.39, abs=0.01)
        assert probabilities[EGYPTIAN_CAT] == pytest.approx(0.36, abs=0.01)
        assert list(np.argsort(probabilities)[::-1][:2]) == [TIGER_CAT, EGYPTIAN_CAT]

    def test_a_cup_of_coffee_is_classified_as_espresso(self, imagenet_backbone):
        probabilities = _classify(imagenet_backbone, skimage.data.coffee())
        assert np.argmax(probabilities) == ESPRESSO
        assert probabilities[ESPRESSO] == pytest.approx(0.95, abs=0.01)

    def test_the_weights_file_is_small_enough_to_be_committed(self):
        assert registry.weights_path("efficientnet_lite0", "imagenet").stat().st_size <= 9.5e6

    @pytest.mark.parametrize("size, features", [((64, 64), (2, 2)), ((70, 33), (3, 2))])
    def test_any_image_size(self, imagenet_backbone, size, features):
        assert imagenet_backbone(np.zeros((1, *size, 3), np.float32)).shape == (1, *features, 1280)

    def test_random_weights_have_the_same_shapes_and_normalisation_that_trains(self, imagenet_backbone):
        model = registry.build("efficientnet_lite0", "random")

        def shapes(variables):
            return sorted(tuple(variable.shape) for variable in variables)

        assert shapes(model.weights) == shapes(imagenet_backbone.weights)
        norms = [layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)]
        kernels = imagenet_backbone.trainable_variables
        assert len(norms) == len(kernels) == 49
        assert len(model.trainable_variables) == len(kernels) + 2 * len(norms)

    def test_random_weights_keep_the_scale_of_the_signal(self):
        images = np.random.default_rng(0).uniform(0, 255, (4, 64, 64, 3)).astype(np.float32)
        features = registry.build("efficientnet_lite0", "random")(images, training=True)
        assert 0.1 < float(tf.math.reduce_std(features)) < 10


class TestConversion:
    @staticmethod
    def _state() -> dict[str, np.ndarray]:
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

    def test_names_and_axes(self):
        state = self._state()
        arrays = convert(state)
        assert len(arrays) == 2 + 4 * 5
        stem, depthwise = state["_conv_stem.weight"], state["_blocks.0._depthwise_conv.weight"]
        assert arrays["stem/kernel"][1, 2, 0, 3] == np.float32(stem[3, 0, 1, 2])
        assert arrays["block0_depthwise/kernel"][4, 1, 3, 0] == np.float32(depthwise[3, 0, 4, 1])
        assert arrays["classifier/kernel"][5, 6] == np.float32(state["_fc.weight"][6, 5])
        np.testing.assert_allclose(arrays["block0_project/gamma"], state["_blocks.0._bn2.weight"], rtol=1e-6)
        np.testing.assert_allclose(arrays["head/moving_variance"], state["_bn1.running_var"], rtol=1e-6)

    def test_names_are_those_of_the_network(self, imagenet_backbone):
        names = {variable.name.split(":")[0] for variable in imagenet_backbone.weights}
        assert {name for name in convert(self._state()) if "classifier" not in name} <= names

    def test_unknown_arrays_are_refused(self):
        with pytest.raises(ValueError, match="22 arrays were converted; the state dict has 23"):
            convert({**self._state(), "_blocks.0._se_reduce.weight": np.zeros(3)})

    def test_kernels_are_saved_in_half_precision_and_vectors_in_single(self, tmp_path):
        save(
            {"a/kernel": np.full((1, 2), 1 / 3, np.float32), "a/beta": np.ones(2, np.float32)},
            tmp_path / "w.npz",
        )
        with np.load(tmp_path / "w.npz") as file:
            assert file["a/kernel"].dtype == np.float16
            assert file["a/beta"].dtype == np.float32


class TestCifarResNet:
    @staticmethod
    def _model(**options) -> tf.keras.Model:
        images = tf.keras.Input((32, 32, 3))
        return tf.keras.Model(images, cifar_resnet(images, **options))

    def test_shapes_and_number_of_weights(self):
        model = self._model()
        assert model.output_shape == (None, 8, 8, 256)
        # Counted by hand: (kernel of the shortcut, reduction, 3x3, expansion), then the normalisations.
        kernels = 3 * 9 * 16 + 16
        for shortcut, inputs, reduced, outputs in [
            (True, 16, 16, 64),
            (False, 64, 32, 64),
            (True, 64, 64, 128),
            (False, 128, 64, 128),
            (True, 128, 128, 256),
            (False, 256, 128, 256),
        ]:
            kernels += shortcut * inputs * outputs + inputs * reduced + 9 * reduced**2 + reduced * outputs
        pre = 64 + 64 + 128 + 128 + 256
        norms = 16 + pre + 2 * (16 + 32 + 64 + 64 + 128 + 128) + 256
        assert model.count_params() == kernels + 4 * norms

    def test_sizes_follow_the_options(self):
        assert self._model(stages=2, blocks=1).output_shape == (None, 16, 16, 128)

    def test_repeats_share_weights_and_change_the_result(self):
        once, thrice = self._model(seed=1), self._model(seed=1, block_repeats=3)
        assert once.count_params() == thrice.count_params()
        thrice.set_weights(once.get_weights())
        images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
        assert np.abs(once(images) - thrice(images)).max() > 0.01

    def test_a_bottleneck_computes_what_its_weights_say(self):
        model = self._model(stages=1, blocks=1)
        images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)

        def convolve(inputs, name):
            return tf.nn.conv2d(inputs, model.get_layer(name).kernel, 1, "SAME")

        def activate(inputs):
            # Fresh statistics: mean 0, variance 1.
            return np.maximum(inputs / np.sqrt(1 + 1e-3), 0)

        stem = activate(convolve(images, "stem"))
        block = convolve(stem, "stage0_block0_reduce")
        block = convolve(activate(block), "stage0_block0_conv")
        block = convolve(activate(block), "stage0_block0_expand")
        expected = activate(convolve(stem, "stage0_block0_shortcut") + block)
        np.testing.assert_allclose(model(images), expected, rtol=1e-4, atol=1e-5)

    def test_repeats_with_injection_compute_what_their_weights_say(self):
        model = self._model(stages=1, block_repeats=2, input_injection=True, pre_activation="none")
        images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)

        def convolve(inputs, name):
            return tf.nn.conv2d(inputs, model.get_layer(f"stage0_block1_{name}").kernel, 1, "SAME")

        def activate(inputs):
            return np.maximum(inputs / np.sqrt(1 + 1e-3), 0)

        start = tf.keras.Model(model.input, model.get_layer("stage0_block0_add").output)(images)
        features = start
        for _ in range(2):
            reduced = convolve(features, "reduce") + convolve(start, "injection")
            features += convolve(activate(convolve(activate(reduced), "conv")), "expand")
        np.testing.assert_allclose(model(images), activate(features), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("decimation, side", [("skip", 1), ("avg", 1), ("conv", 2)])
    def test_ways_to_halve_the_resolution(self, decimation, side):
        model = self._model(stages=2, blocks=1, decimation=decimation)
        assert model.output_shape == (None, 16, 16, 128)
        shortcut = model.get_layer("stage1_block0_shortcut")
        assert shortcut.kernel.shape[:2] == (side, side)
        inputs = np.random.default_rng(0).normal(size=(1, 32, 32, 64)).astype(np.float32)
        below = tf.keras.Model(model.get_layer("stage0_block0_add").output, shortcut.output)
        blocks = inputs.reshape(1, 16, 2, 16, 2, 64).transpose(0, 1, 3, 2, 4, 5)
        kernel = shortcut.kernel.numpy()
        if decimation == "conv":
            expected = np.einsum("bhwyxi,yxio->bhwo", blocks, kernel)
        else:
            chosen = blocks[:, :, :, 0, 0] if decimation == "skip" else blocks.mean((3, 4))
            expected = chosen @ kernel[0, 0]
        np.testing.assert_allclose(below(inputs), expected, rtol=1e-3, atol=1e-4)

    def test_activations_are_sequences_of_steps(self):
        plain = self._model(final_activation=False, mid_activation="ln_softplus", post_activation="none")
        kinds = [type(layer).__name__ for layer in plain.layers]
        assert kinds.count("LayerNormalization") == 6
        # The stem's, and that before each block but the first.
        assert kinds.count("BatchNormalization") == 6
        activations = [layer.activation.__name__ for layer in plain.layers if hasattr(layer, "activation")]
        assert activations.count("softplus") == 6
        assert activations.count("relu") == 6

    def test_zero_mean_kernels_are_centred_by_updates(self):
        model = self._model(stages=1, blocks=1, zero_mean_kernel=True)
        (kernel,) = model.get_layer("stage0_block0_expand").trainable_variables
        assert np.abs(kernel.numpy().mean(2)).max() > 1e-3
        tf.keras.optimizers.SGD(0.1).apply_gradients([(tf.ones_like(kernel), kernel)])
        assert np.abs(kernel.numpy().mean(2)).max() < 1e-6

    def test_frozen_normalisation_stays(self):
        model = self._model(frozen_norm=True)
        images = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
        np.testing.assert_array_equal(model(images, training=True), model(images, training=False))
        assert not any("norm" in variable.name for variable in model.trainable_variables)

    def test_options_out_of_range_are_refused(self):
        with pytest.raises(ValueError, match="at least 1"):
            self._model(block_repeats=0)
