from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry, specs
from ccp_dml.models.backbones.specs import PublishedWeights
from ccp_dml.models.backbones.weights import save_weights

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def test_names_and_checks_do_not_import_tensorflow():
    program = (
        "import sys; from ccp_dml.models.backbones import registry;"
        "[registry.check(name, 'random') for name in registry.names()]; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_unknown_backbones_and_weights_are_refused():
    with pytest.raises(ValueError, match="'vgg' is unknown; expected one of efficientnet_lite0, bn_"):
        registry.check("vgg")
    with pytest.raises(ValueError, match=r"no weights 'imagenet'; expected one of random, a file \(.npz\)"):
        registry.check("cifar_resnet", "imagenet")
    with pytest.raises(ValueError, match="vgg"):
        registry.build("vgg")


def test_a_missing_weights_file_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "WEIGHTS_DIR", tmp_path)
    with pytest.raises(ValueError, match=f"efficientnet_lite0_imagenet.npz in {tmp_path}"):
        registry.check("efficientnet_lite0")
    registry.check("efficientnet_lite0", "random")


def test_specs_are_consistent():
    for name, spec in registry.BACKBONES.items():
        assert spec.default_weights in spec.weights
        assert spec.min_image_size <= spec.default_image_size
        registry.check(name, "random")


class TestFiles:
    @pytest.mark.parametrize(
        "name, file, message",
        [
            ("resnet50", "none.h5", "expected an existing file; found none at .*none.h5"),
            ("resnet50", "w.npz", "expected a file that ends in .h5"),
            ("cifar_resnet", "w.h5", "expected a file that ends in .npz"),
            ("bn_inception", "w.pth", "ends in .npz or .h5; convert it by .*convert bn_inception"),
            ("cifar_resnet", "folder/places", "expected a file that ends in .npz"),
        ],
    )
    def test_what_cannot_be_read_is_refused(self, name, file, message, tmp_path):
        (tmp_path / "w.npz").touch()
        with pytest.raises(ValueError, match=message):
            registry.check(name, str(tmp_path / file))

    def test_a_backbone_starts_from_a_file_that_was_saved(self, tmp_path):
        model = registry.build("cifar_resnet", image_size=32, seed=1)
        save_weights(model, tmp_path / "weights.npz")
        again = registry.build("cifar_resnet", str(tmp_path / "weights.npz"), image_size=32, seed=2)
        np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
        # Loaded normalisation is frozen, unless that is not wanted.
        np.testing.assert_array_equal(again(IMAGES, training=True), model(IMAGES))
        thawed = registry.build(
            "cifar_resnet", str(tmp_path / "weights.npz"), image_size=32, freeze_batch_norm=False
        )
        assert len(thawed.trainable_variables) == len(model.trainable_variables)
        assert np.abs(thawed(IMAGES, training=True) - model(IMAGES)).max() > 0.01

    def test_trained_normalisation_reads_the_file_of_the_frozen_one(self, imagenet_backbone):
        thawed = registry.build("efficientnet_lite0", freeze_batch_norm=False)
        np.testing.assert_allclose(thawed(IMAGES), imagenet_backbone(IMAGES), atol=1e-4)
        assert len(thawed.trainable_variables) == 3 * len(imagenet_backbone.trainable_variables)

    def test_a_model_that_is_restored_later_needs_no_file(self, tmp_path, monkeypatch):
        monkeypatch.setattr(specs, "WEIGHTS_DIR", tmp_path)
        model = registry.build("efficientnet_lite0", "imagenet", load=False)
        assert len(model.trainable_variables) == 49


class TestDownload:
    CONTENT = b"weights"
    URL = "https://example.org/weights.h5"

    @pytest.fixture
    def weights(self, tmp_path, monkeypatch) -> PublishedWeights:
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        return PublishedWeights("weights.h5", self.URL, hashlib.md5(self.CONTENT).hexdigest())

    def _serve(self, monkeypatch, content: bytes) -> list[str]:
        asked: list[str] = []

        def urlopen(url, timeout):
            asked.append(url)
            return io.BytesIO(content)

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return asked

    def test_once(self, weights, tmp_path, monkeypatch):
        asked = self._serve(monkeypatch, self.CONTENT)
        weights.provide()
        weights.provide()
        assert asked == [self.URL]
        assert weights.path == tmp_path / "models" / "weights.h5"
        assert weights.path.read_bytes() == self.CONTENT
        assert list(weights.path.parent.iterdir()) == [weights.path]

    def test_a_damaged_download_is_not_kept(self, weights, monkeypatch):
        self._serve(monkeypatch, b"half")
        with pytest.raises(ValueError, match="what arrived is damaged"):
            weights.provide()
        assert not weights.path.exists()

    def test_a_damaged_file_is_named(self, weights):
        weights.path.parent.mkdir()
        weights.path.write_bytes(b"half")
        with pytest.raises(ValueError, match=f"{weights.path} is damaged or another file: its MD5 is"):
            weights.provide()

    @pytest.mark.parametrize(
        "name, file",
        [
            ("resnet50", "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"),
            ("resnet50_v2", "resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5"),
            ("efficientnet_b0", "efficientnetb0_notop.h5"),
        ],
    )
    def test_without_network_the_file_its_place_and_its_source_are_named(
        self, name, file, tmp_path, monkeypatch
    ):
        def fail(url, timeout):
            raise OSError("no network")

        monkeypatch.setattr(urllib.request, "urlopen", fail)
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
        with pytest.raises(ValueError) as error:
            registry.check(name)
        message = str(error.value)
        assert f"expected the file {file} in {tmp_path}/models; it could not be downloaded" in message
        assert message.endswith(f"put it there yourself, from {registry.BACKBONES[name].imagenet.url}")

    def test_sources_and_checksums_are_those_of_keras(self):
        from keras.src.applications import efficientnet, resnet

        imagenet = {name: spec.imagenet for name, spec in registry.BACKBONES.items()}
        assert imagenet["resnet50"].md5 == resnet.WEIGHTS_HASHES["resnet50"][1]
        assert imagenet["resnet50_v2"].md5 == resnet.WEIGHTS_HASHES["resnet50v2"][1]
        assert imagenet["efficientnet_b0"].md5 == efficientnet.WEIGHTS_HASHES["b0"][1]
        modules = {"resnet50": resnet, "resnet50_v2": resnet, "efficientnet_b0": efficientnet}
        for name, module in modules.items():
            assert imagenet[name].url == module.BASE_WEIGHTS_PATH + imagenet[name].file


class TestLayers:
    def test_a_cut_backbone_ends_at_the_named_layer(self):
        whole = registry.build("cifar_resnet", image_size=32, seed=3)
        cut = registry.build("cifar_resnet", image_size=32, seed=3, layer="stage1_block0_add")
        expected = tf.keras.Model(whole.input, whole.get_layer("stage1_block0_add").output)
        assert cut.name == "cifar_resnet"
        assert cut.output_shape == (None, 16, 16, 128)
        np.testing.assert_array_equal(cut(IMAGES), expected(IMAGES))
        assert len(cut.weights) < len(whole.weights)

    def test_an_unknown_layer_is_refused_with_near_names(self):
        with pytest.raises(
            ValueError, match="'stage1_block0_ad' is no layer.*near names are stage1_block0_a"
        ):
            registry.build("cifar_resnet", layer="stage1_block0_ad")

    @pytest.mark.parametrize("freeze_batch_norm", [True, False])
    def test_frozen_layers_do_not_train(self, freeze_batch_norm):
        model = registry.build(
            "efficientnet_lite0", freeze_batch_norm=freeze_batch_norm, frozen_layers=["stem", r"block\d_"]
        )
        frozen = {layer.name.split("_")[0] for layer in model.layers if layer.weights and not layer.trainable}
        assert frozen == {"stem", *(f"block{index}" for index in range(10))}
        trained = {variable.name.split("/")[0].split("_")[0] for variable in model.trainable_variables}
        assert trained == {"head", *(f"block{index}" for index in range(10, 16))}

    def test_an_expression_that_matches_nothing_is_refused(self):
        with pytest.raises(ValueError, match="'stem2' matches no layer.*near names are stem"):
            registry.build("cifar_resnet", frozen_layers=["stem2"])


class TestOptions:
    def test_they_are_read_from_text(self):
        options = registry.check_options("cifar_resnet", "stages=2, input_injection=true,decimation=avg")
        assert options["stages"] == 2
        assert options["input_injection"] is True
        assert options["decimation"] == "avg"
        assert options["blocks"] == 2
        model = registry.build("cifar_resnet", image_size=32, options="stages=2,blocks=1")
        assert model.output_shape == (None, 16, 16, 128)

    @pytest.mark.parametrize(
        "text, message",
        [
            ("stages", "'stages' is no option; expected name=value"),
            ("depth=3", "'depth=3' is no option; expected name=value with one of stages, blocks"),
            ("stages=two", "stages is 'two'; expected an integer"),
            ("stages=0", "stages is 0; at least 1"),
            ("stages=1,stages=2", "stages is given twice"),
            ("input_injection=maybe", "expected true or false"),
            ("decimation=max", "expected one of skip, avg, conv"),
            ("mid_activation=bn_tanh", "expected none, or bn, ln"),
        ],
    )
    def test_others_are_refused(self, text, message):
        with pytest.raises(ValueError, match=message):
            registry.check("cifar_resnet", options=text)

    def test_a_backbone_without_options_takes_none(self):
        with pytest.raises(ValueError, match="'resnet50' has no options"):
            registry.check_options("resnet50", "stages=2")
