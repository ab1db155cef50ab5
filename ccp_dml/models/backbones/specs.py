"""The table of all backbones: network, image size, pixel range and weights. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccp_dml.models.backbones.options import CifarResNetOptions, VitOptions
from ccp_dml.models.backbones.vit_layout import VARIANTS
from ccp_dml.options import Options

IMAGENET, RANDOM, OWN = "imagenet", "random", "own"
NPZ, H5 = ".npz", ".h5"

_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


WEIGHTS_DIR = Path(__file__).parent / "weights"
_TIMEOUT_SECONDS = 20

_HERE = "ccp_dml.models.backbones."
_KERAS = f"{_HERE}keras_applications"
_KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"


@dataclass(frozen=True)
class PublishedWeights:
    """A file of published weights.

    Attributes:
        file: name of the file.
        url: address to download it from; None if it comes with the library or is made by a command.
        md5: checksum of the file, if its publisher states one.
        how: for a file that is made by a command: the end of a sentence that names source and command.
    """

    file: str
    url: str | None = None
    md5: str | None = None
    how: str = ""

    @property
    def path(self) -> Path:
        """Path of the file: with the library, or in the folder where Keras keeps such files."""
        with_library = self.url is None and not self.how
        return (WEIGHTS_DIR if with_library else cache_folder()) / self.file

    def provide(self) -> None:
        """Makes sure that the file is there, downloading it if possible.

        Raises:
            ValueError: if it is missing or damaged; the message names the file and its folder.
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
                    raise OSError("the downloaded file is damaged")
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


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone.

    Attributes:
        target: `'module:function'`; `function(images, *, frozen_norm, seed, **options)` applies the network
            with its `arguments` and options to scaled images [B, H, W, 3] and returns the feature map
            [B, h, w, F].
        default_image_size: side, in pixels, of the images that it is meant for.
        pixel_scaling: arguments of `models.layers.PixelScaling`, from RGB in 0..255 to its range; None if
            the network takes RGB in 0..255.
        min_image_size: smallest side that it accepts.
        imagenet: its published weights, if there are any.
        file_endings: endings of files that its weights can be read from.
        h5_loader: `'module:function'`; `function(model, path)` sets the weights from a publisher's HDF5 file.
        finish: `'module:function'`; `function(model)` is called last, whatever the weights.
        options: class of the options of the function, if it has any.
        arguments: further arguments of the function.
        imagenet_loader: `'module:function'`; `function(model, **arguments)` sets published weights that the
            publisher's own code downloads.
        named: names of its weights, the default first; None for those that follow from `imagenet`.
    """

    target: str
    default_image_size: int
    pixel_scaling: Mapping[str, Any] | None
    min_image_size: int = 8
    imagenet: PublishedWeights | None = None
    file_endings: tuple[str, ...] = (NPZ,)
    h5_loader: str | None = None
    finish: str | None = None
    options: type[Options] | None = None
    arguments: Mapping[str, str] = field(default_factory=dict)
    imagenet_loader: str | None = None
    named: tuple[str, ...] | None = None

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of its weights, the default first."""
        if self.named is not None:
            return self.named
        return (RANDOM,) if self.imagenet is None else (IMAGENET, RANDOM)

    @property
    def default_weights(self) -> str:
        """Name of its default weights."""
        return self.weights[0]


def bgr_minus_mean(red: float, green: float, blue: float) -> dict[str, Any]:
    """BGR pixels in 0..255 minus their mean, as networks of Caffe expect them."""
    return {"mean": (red / 255, green / 255, blue / 255), "scale": 255.0, "reverse_channels": True}


BACKBONES: dict[str, BackboneSpec] = {
    "efficientnet_lite0": BackboneSpec(
        target=f"{_HERE}efficientnet_lite0:efficientnet_lite0",
        default_image_size=224,
        pixel_scaling={"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3},
        imagenet=PublishedWeights("efficientnet_lite0_imagenet.npz"),
    ),
    "bn_inception": BackboneSpec(
        target=f"{_HERE}bn_inception:bn_inception",
        default_image_size=227,
        pixel_scaling=bgr_minus_mean(128.0, 117.0, 104.0),
        imagenet=PublishedWeights(
            "bn_inception_imagenet.npz",
            how=", which python -m ccp_dml.models.backbones.convert bn_inception makes from "
            "bn_inception-52deb4733.pth (http://data.lip6.fr/cadene/pretrainedmodels/), or "
            "--backbone_weights=BNInception.h5, the file of the authors of CCP",
        ),
        file_endings=(NPZ, H5),
        h5_loader=f"{_HERE}bn_inception_h5:load_bn_inception_h5",
    ),
    "resnet50": BackboneSpec(
        target=f"{_KERAS}:resnet50",
        default_image_size=227,
        pixel_scaling=bgr_minus_mean(123.68, 116.779, 103.939),
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
        pixel_scaling={"mean": (0.5,) * 3, "std": (0.5,) * 3},
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
        # Back to 0..255: the network scales the pixels itself.
        pixel_scaling={"scale": 255.0},
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
        pixel_scaling={"mean": IMAGENET_MEAN},
        options=CifarResNetOptions,
    ),
    **{
        name: BackboneSpec(
            target=f"{_HERE}vit:vit",
            default_image_size=224,
            pixel_scaling={"mean": _CLIP_MEAN, "std": _CLIP_STD}
            if variant.clip
            else {"mean": IMAGENET_MEAN, "std": IMAGENET_STD},
            min_image_size=variant.patch,
            options=VitOptions,
            arguments={"variant": name},
        )
        for name, variant in VARIANTS.items()
    },
}
