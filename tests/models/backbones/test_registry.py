"""Backbones by name: checks, files of weights, layers that are cut or frozen."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.backbones import registry, specs
from ccp_dml.models.backbones.weights import save_weights

IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype(np.float32)


def test_names_and_checks_do_not_import_tensorflow():
    program = (
        "import sys; from ccp_dml.models.backbones import registry;"
        "[registry.check(name, 'random') for name in registry.BACKBONES];"
        "sys.exit('tensorflow' in sys.modules)"
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
def test_files_that_cannot_be_read_are_refused(name, file, message, tmp_path):
    (tmp_path / "w.npz").touch()
    with pytest.raises(ValueError, match=message):
        registry.check(name, str(tmp_path / file))


def test_a_backbone_starts_from_a_file_that_was_saved(tmp_path):
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


def test_trained_normalisation_reads_the_file_of_the_frozen_one(imagenet_backbone):
    thawed = registry.build("efficientnet_lite0", freeze_batch_norm=False)
    np.testing.assert_allclose(thawed(IMAGES), imagenet_backbone(IMAGES), atol=1e-4)
    assert len(thawed.trainable_variables) == 3 * len(imagenet_backbone.trainable_variables)


def test_a_model_that_is_restored_later_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(specs, "WEIGHTS_DIR", tmp_path)
    model = registry.build("efficientnet_lite0", "imagenet", load=False)
    assert len(model.trainable_variables) == 49


def test_a_cut_backbone_ends_at_the_named_layer():
    whole = registry.build("cifar_resnet", image_size=32, seed=3)
    cut = registry.build("cifar_resnet", image_size=32, seed=3, layer="stage1_block0_add")
    expected = tf.keras.Model(whole.input, whole.get_layer("stage1_block0_add").output)
    assert cut.name == "cifar_resnet"
    assert cut.output_shape == (None, 16, 16, 128)
    np.testing.assert_array_equal(cut(IMAGES), expected(IMAGES))
    assert len(cut.weights) < len(whole.weights)


def test_an_unknown_layer_is_refused_with_near_names():
    with pytest.raises(ValueError, match="'stage1_block0_ad' is no layer.*near names are stage1_block0_a"):
        registry.build("cifar_resnet", layer="stage1_block0_ad")


@pytest.mark.parametrize("freeze_batch_norm", [True, False])
def test_frozen_layers_do_not_train(freeze_batch_norm):
    model = registry.build(
        "efficientnet_lite0", freeze_batch_norm=freeze_batch_norm, frozen_layers=["stem", r"block\d_"]
    )
    frozen = {layer.name.split("_")[0] for layer in model.layers if layer.weights and not layer.trainable}
    assert frozen == {"stem", *(f"block{index}" for index in range(10))}
    trained = {variable.name.split("/")[0].split("_")[0] for variable in model.trainable_variables}
    assert trained == {"head", *(f"block{index}" for index in range(10, 16))}


def test_an_expression_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="'stem2' matches no layer.*near names are stem"):
        registry.build("cifar_resnet", frozen_layers=["stem2"])
