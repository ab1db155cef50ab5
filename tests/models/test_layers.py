"""The layers around a backbone: pixel scaling, pooling, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.embedding_model import AuxiliaryCrops, MeanOfCrops
from ccp_dml.models.layers import GlobalPooling, LipschitzNormalization, PixelScaling, pool

RNG = np.random.default_rng(0)


class TestPixelScaling:
    def test_formula(self):
        mean, std, scale = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), 2.0
        images = RNG.uniform(0, 255, (2, 3, 4, 3)).astype(np.float32)
        expected = np.empty(images.shape)
        for channel in range(3):
            pixels = images[..., channel].astype(np.float64) / 255
            expected[..., 2 - channel] = scale * (pixels - mean[channel]) / std[channel]
        scaled = PixelScaling(mean, std, scale, reverse_channels=True)(images)
        np.testing.assert_allclose(scaled, expected, rtol=1e-5, atol=1e-5)

    def test_integers_as_constants_make_it_exact(self):
        pixels = np.repeat(np.arange(256, dtype=np.float32)[:, np.newaxis], 3, axis=1)
        scaled = PixelScaling((127 / 255,) * 3, (128 / 255,) * 3)(pixels)
        np.testing.assert_array_equal(scaled, (pixels - 127) / 128)

    def test_pixels_are_not_rounded_in_half_precision(self, half_precision):
        images = np.full((1, 1, 1, 3), 200.03, np.float32)
        scaled = PixelScaling((200 / 255,) * 3)(images)
        assert scaled.dtype == tf.float32
        np.testing.assert_allclose(scaled, 0.03 / 255, rtol=1e-3)

    @pytest.mark.parametrize(
        "mean, std, message",
        [
            ((0.5,), (1.0,) * 3, "three elements each"),
            ((0.5,) * 3, (1.0, 0.0, 1.0), "expected positive numbers"),
        ],
    )
    def test_bad_constants_are_refused(self, mean, std, message):
        with pytest.raises(ValueError, match=message):
            PixelScaling(mean, std)


class TestPooling:
    FEATURES = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)

    @pytest.mark.parametrize("kind", ["average", "max", "both"])
    def test_formula(self, kind):
        expected = np.zeros((2, 5))
        for b in range(2):
            for f in range(5):
                values = [float(self.FEATURES[b, y, x, f]) for y in range(3) for x in range(4)]
                if kind in ("average", "both"):
                    expected[b, f] += sum(values) / len(values)
                if kind in ("max", "both"):
                    expected[b, f] += max(values)
        np.testing.assert_allclose(pool(self.FEATURES, kind), expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(GlobalPooling(kind)(self.FEATURES), pool(self.FEATURES, kind))

    def test_half_precision_features_are_pooled_in_float32(self):
        features = tf.constant(np.full((1, 300, 300, 1), 1.001), tf.float16)
        pooled = pool(features, "average")
        assert pooled.dtype == tf.float32
        np.testing.assert_allclose(pooled, np.float32(np.float16(1.001)), rtol=1e-5)

    @pytest.mark.parametrize("power", [1.0, 2.5, 3.0, 20.0])
    def test_the_generalised_mean_is_a_mean_of_powers(self, power):
        maps = np.abs(self.FEATURES) + 0.1
        expected = np.zeros(maps.shape[::3])
        for image, channel in np.ndindex(*expected.shape):
            values = maps[image, :, :, channel].astype(np.float64).ravel()
            expected[image, channel] = (sum(value**power for value in values) / len(values)) ** (1 / power)
        np.testing.assert_allclose(pool(maps, "gem", power), expected, rtol=1e-5)
        np.testing.assert_allclose(pool(maps, "gem", 0.5), maps.mean((1, 2)), rtol=1e-5)

    @pytest.mark.parametrize("size", [0.0, 1e-30, 1.0, 1e30])
    @pytest.mark.parametrize("power", [1.0, 3.0, 1e4])
    def test_the_generalised_mean_and_its_gradients_are_finite(self, size, power):
        maps, exponent = tf.constant(size * np.abs(self.FEATURES), tf.float32), tf.constant(power)
        with tf.GradientTape() as tape:
            tape.watch([maps, exponent])
            pooled = pool(maps, "gem", exponent)
        assert np.isfinite(pooled).all()
        for gradient in tape.gradient(pooled, [maps, exponent]):
            assert np.isfinite(gradient).all()

    def test_gradients_of_the_generalised_mean_are_those_of_its_formula(self):
        maps = tf.constant(np.abs(self.FEATURES) + 0.1, tf.float32)
        power = tf.constant(3.0)

        def plain():
            return tf.reduce_mean(maps**power, axis=[1, 2]) ** (1 / power)

        gradients = []
        for function in (lambda: pool(maps, "gem", power), plain):
            with tf.GradientTape() as tape:
                tape.watch([maps, power])
                total = tf.reduce_sum(tf.square(function()))
            gradients.append(tape.gradient(total, [maps, power]))
        for ours, expected in zip(*gradients):
            np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)

    def test_the_power_is_trained(self):
        layer = GlobalPooling("gem")
        layer(self.FEATURES)
        assert [float(variable) for variable in layer.trainable_variables] == [3.0]

    def test_without_pooling_all_positions_are_kept(self):
        images, height, width, channels = self.FEATURES.shape
        flat = pool(self.FEATURES, "none").numpy()
        assert flat.shape == (images, height * width * channels)
        np.testing.assert_array_equal(flat[0, channels : 2 * channels], self.FEATURES[0, 0, 1])
        np.testing.assert_array_equal(pool(flat, "none"), flat)
        with pytest.raises(ValueError, match="images of a known size"):
            GlobalPooling("none")(tf.keras.Input((None, None, 3)))

    def test_unknown_kinds_are_refused(self):
        with pytest.raises(ValueError, match="'median'.*average, max, both"):
            pool(self.FEATURES, "median")
        with pytest.raises(ValueError, match="median"):
            GlobalPooling("median")


class TestLipschitzNormalization:
    def test_formula(self):
        vectors = np.array([[0.3, 0.4], [3.0, 4.0], [0.0, 0.0], [0.0, -1.0]], np.float32)
        expected = [row / max(1.0, np.linalg.norm(row)) for row in vectors.astype(np.float64)]
        np.testing.assert_allclose(LipschitzNormalization()(vectors), expected, rtol=1e-6)

    def test_other_kinds(self):
        vectors = np.array([[0.3, 0.4]], np.float32)
        np.testing.assert_allclose(LipschitzNormalization("unit")(vectors), [[0.6, 0.8]], rtol=1e-6)
        np.testing.assert_array_equal(LipschitzNormalization("none")(vectors), vectors)

    def test_output_is_float32_in_half_precision(self, half_precision):
        assert LipschitzNormalization()(tf.ones([1, 2], tf.float16)).dtype == tf.float32

    def test_unknown_kinds_are_refused(self):
        with pytest.raises(ValueError, match="l7"):
            LipschitzNormalization("l7")


@pytest.mark.parametrize(
    "layer",
    [
        PixelScaling((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 7.0, True),
        GlobalPooling("both"),
        GlobalPooling("gem"),
        AuxiliaryCrops(2),
        MeanOfCrops(1),
        LipschitzNormalization("unit"),
    ],
    ids=lambda layer: layer.name,
)
def test_config_round_trip(layer):
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    inputs = RNG.uniform(0, 255, (2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(again(inputs), layer(inputs))
