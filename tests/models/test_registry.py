from __future__ import annotations

import subprocess
import sys

import pytest

from ccp_dml.models.backbones import registry


def test_names_and_checks_do_not_import_tensorflow():
    program = (
        "import sys; from ccp_dml.models.backbones import registry; registry.names();"
        "[registry.check(name) for name in registry.names()]; sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize(
    "name, file", [("bn_inception", "bn_inception-52deb4733.pth"), ("resnet50", "resnet50")]
)
def test_planned_backbones_say_what_they_will_need(name, file):
    assert name not in registry.names()
    with pytest.raises(ValueError, match=f"not built yet.*{file}"):
        registry.check(name)


def test_unknown_backbones_and_weights_are_refused():
    with pytest.raises(
        ValueError, match="'vgg' is unknown; expected one of efficientnet_lite0, cifar_resnet"
    ):
        registry.check("vgg")
    with pytest.raises(ValueError, match="no weights 'imagenet'; expected one of random"):
        registry.check("cifar_resnet", "imagenet")
    with pytest.raises(ValueError, match="vgg"):
        registry.build("vgg")


def test_a_missing_weights_file_is_named_with_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "WEIGHTS_DIR", tmp_path)
    with pytest.raises(ValueError, match=f"efficientnet_lite0_imagenet.npz in {tmp_path}"):
        registry.check("efficientnet_lite0")
    registry.check("efficientnet_lite0", "random")


def test_specs_are_consistent():
    for name, spec in registry.BACKBONES.items():
        assert spec.default_weights in spec.weights
        registry.check(name, spec.default_weights)
