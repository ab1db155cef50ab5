"""What the library knows of each backbone; imports no TensorFlow."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

IMAGENET, RANDOM = "imagenet", "random"
NPZ, H5 = ".npz", ".h5"

_BOOLEANS = {"true": True, "false": False}


def parse_options(text: str, kind: type[Any]) -> Any:
    """The options that a text writes.

    Args:
        text: `name=value,name=value`; may be empty.
        kind: a dataclass whose fields are integers, booleans or texts and have defaults.

    Returns:
        An instance of it.

    Raises:
        ValueError: if a name is unknown or given twice, or a value is not valid.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        if not equals or name not in defaults:
            raise ValueError(f"{part!r} is no option; expected name=value with one of {', '.join(defaults)}")
        if name in values:
            raise ValueError(f"{name} is given twice")
        values[name] = _value(name, value, defaults[name])
    return kind(**values)


def _value(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _BOOLEANS:
            raise ValueError(f"{name} is {text!r}; expected true or false")
        return _BOOLEANS[text.lower()]
    if isinstance(default, int):
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"{name} is {text!r}; expected an integer") from None
    return text


WEIGHTS_DIR = Path(__file__).parent / "weights"
_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class PublishedWeights:
    """A file of published weights.

    Attributes:
        file: its name.
        url: where it is downloaded from; None if it comes with the library or a command makes it.
        md5: of the file, where its publisher states it.
        how: for a file that is made by a command: from what and by which.
    """

    file: str
    url: str | None = None
    md5: str | None = None
    how: str = ""

    @property
    def path(self) -> Path:
        """Where the file is expected: with the library, else in the folder where Keras keeps such files."""
        own = self.url is None and not self.how
        return (WEIGHTS_DIR if own else cache_folder()) / self.file

    def provide(self) -> None:
        """Makes sure that the file is there, downloading it if it can be.

        Raises:
            ValueError: if it is not there, or is damaged. The message names the file and its place.
        """
        if not self.path.is_file():
            if self.url is None:
                raise ValueError(f"expected the file {self.file} in {self.path.parent}{self.how}")
            self._download(self.url)
        elif self.md5 is not None and (found := _md5(self.path)) != self.md5:
            raise ValueError(
                f"{self.path} is damaged or another file: its MD5 is {found}, expected {self.md5}; "
                "delete it to download it again"
            )

    def _download(self, url: str) -> None:
        folder = self.path.parent
        print(f"downloading {url} to {folder}", file=sys.stderr, flush=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{self.file}.", dir=folder) as workspace:
                fresh = Path(workspace) / self.file
                with (
                    urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as source,
                    fresh.open("wb") as file,
                ):
                    shutil.copyfileobj(source, file)
                if self.md5 is not None and _md5(fresh) != self.md5:
                    raise OSError("what arrived is damaged")
                os.replace(fresh, self.path)
        except OSError as error:
            raise ValueError(
                f"expected the file {self.file} in {folder}; it could not be downloaded ({error}): "
                f"put it there yourself, from {url}"
            ) from error


def cache_folder() -> Path:
    """The folder in which Keras keeps downloaded weights: `$KERAS_HOME/models`, else `~/.keras/models`."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


ACTIVATIONS = ("bn", "ln", "relu", "softplus", "softmax")
DECIMATIONS = ("skip", "avg", "conv")
_NO_ACTIVATION = "none"


@dataclass(frozen=True)
class CifarResNetOptions:
    """What the network is made of.

    An activation is a sequence of `bn` (batch normalisation), `ln` (layer normalisation), `relu`, `softplus`
    and `softmax` (over channels), joined by underscores, or `none`.

    Attributes:
        stages: number of stages, at least 1; each after the first halves the resolution and doubles the
            channels.
        blocks: number of blocks of a stage, at least 1, the first of which changes the number of channels.
        block_repeats: how often each of the other blocks is applied, with the same weights; at least 1.
        final_activation: whether batch normalisation and ReLU follow the last block.
        decimation: how resolution is halved: `skip`, a convolution of one position in two by two; `avg`, a
            mean over the four and then a convolution; `conv`, a convolution of the four.
        pre_activation: before the reduction of a block, except in the very first one.
        mid_activation: before the 3x3 convolution.
        post_activation: before the expansion.
        input_injection: whether what a repeated block received at first is added, through a layer of its
            own, behind the reduction of each repeat.
        zero_mean_kernel: whether kernels of the expansion have mean 0 over their inputs after each update.
    """

    stages: int = 3
    blocks: int = 2
    block_repeats: int = 1
    final_activation: bool = True
    decimation: str = "skip"
    pre_activation: str = "bn_relu"
    mid_activation: str = "bn_relu"
    post_activation: str = "bn_relu"
    input_injection: bool = False
    zero_mean_kernel: bool = False

    def __post_init__(self) -> None:
        """Raises `ValueError` unless all values are valid."""
        for name in ("stages", "blocks", "block_repeats"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is expected")
        if self.decimation not in DECIMATIONS:
            raise ValueError(f"decimation is {self.decimation}; expected one of {', '.join(DECIMATIONS)}")
        for name in ("pre_activation", "mid_activation", "post_activation"):
            unknown = set(steps(getattr(self, name))) - set(ACTIVATIONS)
            if unknown:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; expected {_NO_ACTIVATION}, or "
                    f"{', '.join(ACTIVATIONS)} joined by underscores"
                )


def steps(activation: str) -> tuple[str, ...]:
    """The steps of an activation; none for `none`."""
    return () if activation == _NO_ACTIVATION else tuple(activation.split("_"))


_HERE = "ccp_dml.models.backbones."
_KERAS = f"{_HERE}keras_applications"
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


@dataclass(frozen=True)
class PixelScalingConfig:
    """Arguments of `ccp_dml.models.layers.PixelScaling`.

    Attributes:
        mean: subtracted from RGB pixels in 0..1.
        std: divides the difference.
        scale: factor on the quotient.
        reverse_channels: whether RGB becomes BGR.
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1.0
    reverse_channels: bool = False


@dataclass(frozen=True)
class BackboneSpec:
    """Where a backbone is and what it takes.

    Attributes:
        target: `'module:function'`; `function(images, *, frozen_norm, seed, **options)` applies the network
            to scaled images [B, H, W, 3] and returns the feature map [B, h, w, F].
        default_image_size: side, in pixels, of the images that it is meant for.
        min_image_size: smallest side that it takes.
        pixel_scaling: from RGB in 0..255 to the range that it takes.
        imagenet: its published weights, if there are any.
        file_endings: of the files that its weights can be read from.
        h5_loader: `'module:function'`; `function(model, path)` sets the weights from a publisher's HDF5 file.
        finish: `'module:function'`; `function(model)` is called last, whatever the weights.
        options: dataclass of the options of the function, if it has any.
    """

    target: str
    default_image_size: int
    pixel_scaling: PixelScalingConfig
    min_image_size: int = 8
    imagenet: PublishedWeights | None = None
    file_endings: tuple[str, ...] = (NPZ,)
    h5_loader: str | None = None
    finish: str | None = None
    options: type[Any] | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of its weights."""
        return (RANDOM,) if self.imagenet is None else (IMAGENET, RANDOM)

    @property
    def default_weights(self) -> str:
        """One of them."""
        return self.weights[0]


def _bgr(red: float, green: float, blue: float) -> PixelScalingConfig:
    """BGR pixels in 0..255 less their mean, as Caffe's networks take them."""
    return PixelScalingConfig((red / 255, green / 255, blue / 255), scale=255.0, reverse_channels=True)


BACKBONES: dict[str, BackboneSpec] = {
    "efficientnet_lite0": BackboneSpec(
        target=f"{_HERE}efficientnet_lite0:efficientnet_lite0",
        default_image_size=224,
        pixel_scaling=PixelScalingConfig(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
        imagenet=PublishedWeights("efficientnet_lite0_imagenet.npz"),
    ),
    "bn_inception": BackboneSpec(
        target=f"{_HERE}bn_inception:bn_inception",
        default_image_size=227,
        pixel_scaling=_bgr(128.0, 117.0, 104.0),
        imagenet=PublishedWeights(
            "bn_inception_imagenet.npz",
            how=", which python -m ccp_dml.models.backbones.convert bn_inception makes from "
            "bn_inception-52deb4733.pth (http://data.lip6.fr/cadene/pretrainedmodels/), or "
            "--backbone_weights=BNInception.h5, the file of the authors of CCP",
        ),
        file_endings=(NPZ, H5),
        h5_loader=f"{_HERE}bn_inception:load_bn_inception_h5",
    ),
    "resnet50": BackboneSpec(
        target=f"{_KERAS}:resnet50",
        default_image_size=227,
        pixel_scaling=_bgr(123.68, 116.779, 103.939),
        min_image_size=32,
        imagenet=PublishedWeights(
            file="resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            url=f"{_KERAS_URL}resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            md5="4d473c1dd8becc155b73f8504c6f6626",
        ),
        file_endings=(H5,),
        h5_loader=f"{_KERAS}:load_keras_h5",
    ),
    "resnet50_v2": BackboneSpec(
        target=f"{_KERAS}:resnet50_v2",
        default_image_size=224,
        pixel_scaling=PixelScalingConfig(mean=(0.5,) * 3, std=(0.5,) * 3),
        min_image_size=32,
        imagenet=PublishedWeights(
            file="resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            url=f"{_KERAS_URL}resnet50v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            md5="fac2f116257151a9d068a22e544a4917",
        ),
        file_endings=(H5,),
        h5_loader=f"{_KERAS}:load_keras_h5",
    ),
    "efficientnet_b0": BackboneSpec(
        target=f"{_KERAS}:efficientnet_b0",
        default_image_size=224,
        # The network scales the pixels itself.
        pixel_scaling=PixelScalingConfig(mean=(0.0,) * 3, scale=255.0),
        min_image_size=32,
        imagenet=PublishedWeights(
            file="efficientnetb0_notop.h5",
            url="https://storage.googleapis.com/keras-applications/efficientnetb0_notop.h5",
            md5="50bc09e76180e00e4465e1a485ddc09d",
        ),
        file_endings=(H5,),
        h5_loader=f"{_KERAS}:load_keras_h5",
        finish=f"{_KERAS}:finish",
    ),
    "cifar_resnet": BackboneSpec(
        target=f"{_HERE}cifar_resnet:cifar_resnet",
        default_image_size=32,
        pixel_scaling=PixelScalingConfig(),
        options=CifarResNetOptions,
    ),
}
