"""Published weights: downloads, checksums, and messages that name file, folder and address."""

from __future__ import annotations

import hashlib
import io
import urllib.request

import pytest

from ccp_dml.models.backbones import registry
from ccp_dml.models.backbones.specs import PublishedWeights

CONTENT = b"weights"
URL = "https://example.org/weights.h5"


@pytest.fixture
def weights(tmp_path, monkeypatch) -> PublishedWeights:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return PublishedWeights("weights.h5", URL, hashlib.md5(CONTENT).hexdigest())


def _serve(monkeypatch, content: bytes) -> list[str]:
    asked: list[str] = []

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(content)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    return asked


def test_a_file_is_downloaded_once(weights, tmp_path, monkeypatch):
    asked = _serve(monkeypatch, CONTENT)
    weights.provide()
    weights.provide()
    assert asked == [URL]
    assert weights.path == tmp_path / "models" / "weights.h5"
    assert weights.path.read_bytes() == CONTENT
    assert list(weights.path.parent.iterdir()) == [weights.path]


def test_a_damaged_download_is_not_kept(weights, monkeypatch):
    _serve(monkeypatch, b"half")
    with pytest.raises(ValueError, match="the downloaded file is damaged"):
        weights.provide()
    assert not weights.path.exists()


def test_a_damaged_file_is_named(weights):
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
def test_without_network_the_message_names_file_folder_and_address(name, file, tmp_path, monkeypatch):
    def fail(url, timeout):
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(ValueError) as error:
        registry.check(name)
    message = str(error.value)
    assert f"expected the file {file} in {tmp_path}/models; it could not be downloaded" in message
    assert message.endswith(f"put it there yourself, from {registry.BACKBONES[name].imagenet.url}")


def test_sources_and_checksums_are_those_of_keras():
    from keras.src.applications import efficientnet, resnet

    imagenet = {name: spec.imagenet for name, spec in registry.BACKBONES.items()}
    assert imagenet["resnet50"].md5 == resnet.WEIGHTS_HASHES["resnet50"][1]
    assert imagenet["resnet50_v2"].md5 == resnet.WEIGHTS_HASHES["resnet50v2"][1]
    assert imagenet["efficientnet_b0"].md5 == efficientnet.WEIGHTS_HASHES["b0"][1]
    modules = {"resnet50": resnet, "resnet50_v2": resnet, "efficientnet_b0": efficientnet}
    for name, module in modules.items():
        assert imagenet[name].url == module.BASE_WEIGHTS_PATH + imagenet[name].file
