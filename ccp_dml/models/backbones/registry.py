"""The backbones by name. Names, weights and files are checked without TensorFlow; only `build` imports it."""

from __future__ import annotations

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import tensorflow as tf

RANDOM = "random"
WEIGHTS_DIR = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class PixelScalingConfig:
    """Arguments of `ccp_dml.models.pixel_scaling.PixelScaling`.

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
        target: `'module:function'`; `function(images, *, pretrained, seed)` applies the network to scaled
            images [B, H, W, 3] and returns the feature map [B, h, w, F]. If `pretrained`, batch normalisation
            is frozen.
        default_image_size: side, in pixels, of the images that it is meant for.
        pixel_scaling: from RGB in 0..255 to the range that it takes.
        weights: names of its weights; `'random'`, or NAME of the file `weights/<backbone>_NAME.npz`.
        default_weights: one of them.
    """

    target: str
    default_image_size: int
    pixel_scaling: PixelScalingConfig
    weights: tuple[str, ...]
    default_weights: str


BACKBONES: dict[str, BackboneSpec] = {
    "efficientnet_lite0": BackboneSpec(
        target="ccp_dml.models.backbones.efficientnet_lite0:efficientnet_lite0",
        default_image_size=224,
        pixel_scaling=PixelScalingConfig(mean=(127 / 255,) * 3, std=(128 / 255,) * 3),
        weights=("imagenet", RANDOM),
        default_weights="imagenet",
    ),
    "cifar_resnet": BackboneSpec(
        target="ccp_dml.models.backbones.cifar_resnet:cifar_resnet",
        default_image_size=32,
        pixel_scaling=PixelScalingConfig(),
        weights=(RANDOM,),
        default_weights=RANDOM,
    ),
}

# The paper's backbones that are still to come, and the published weights that each will be converted from.
PLANNED: dict[str, str] = {
    "bn_inception": "bn_inception-52deb4733.pth (ImageNet weights of the Python package pretrainedmodels)",
    "resnet50": "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5 (ImageNet weights of Keras)",
}


def names() -> tuple[str, ...]:
    """Names of the backbones that can be built."""
    return tuple(BACKBONES)


def weights_path(name: str, weights: str) -> Path | None:
    """The file that holds the weights, None for random ones."""
    return None if weights == RANDOM else WEIGHTS_DIR / f"{name}_{weights}.npz"


def check(name: str, weights: str | None = None) -> None:
    """Checks that a backbone can be built, without importing TensorFlow.

    Args:
        name: name of the backbone.
        weights: name of its weights; None for its default ones.

    Raises:
        ValueError: if there is no such backbone, if it is only planned, if it has no such weights, or if the
            file of the weights is missing.
    """
    if name in PLANNED:
        raise ValueError(
            f"backbone {name!r} is not built yet; it will need the weights file {PLANNED[name]}; "
            f"expected one of {', '.join(BACKBONES)}"
        )
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} is unknown; expected one of {', '.join(BACKBONES)}")
    spec = BACKBONES[name]
    weights = weights or spec.default_weights
    if weights not in spec.weights:
        raise ValueError(
            f"backbone {name!r} has no weights {weights!r}; expected one of {', '.join(spec.weights)}"
        )
    path = weights_path(name, weights)
    if path is not None and not path.is_file():
        raise ValueError(
            f"the {weights} weights of backbone {name!r} are missing; "
            f"expected the file {path.name} in {path.parent}"
        )


def build(
    name: str, weights: str | None = None, *, image_size: int | None = None, seed: int = 0
) -> tf.keras.Model:
    """Builds a backbone.

    Args:
        name: name of the backbone.
        weights: name of its weights; None for its default ones. Batch normalisation is frozen unless they are
            random.
        image_size: side of its images if it is known, which lets XLA compile the model; None for any H and W.
        seed: of random weights.

    Returns:
        A model named `name` from float32 RGB images [B, H, W, 3] in 0..255 to a feature map [B, h, w, F].

    Raises:
        ValueError: see `check`.
    """
    check(name, weights)
    import tensorflow as tf

    from ccp_dml.models.backbones.weights_file import load_weights
    from ccp_dml.models.pixel_scaling import PixelScaling

    spec = BACKBONES[name]
    path = weights_path(name, weights or spec.default_weights)
    module, function = spec.target.split(":")
    network = getattr(importlib.import_module(module), function)

    images = tf.keras.Input((image_size, image_size, 3), name="images")
    scaled = PixelScaling(**asdict(spec.pixel_scaling), name="pixel_scaling")(images)
    features = network(scaled, pretrained=path is not None, seed=seed)
    model = tf.keras.Model(images, features, name=name)
    if path is not None:
        load_weights(model, path)
    return model
