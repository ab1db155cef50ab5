"""The backbones by name. Names, weights and files are checked without TensorFlow; only `build` imports it."""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccp_dml.models.backbones.specs import BACKBONES, H5, IMAGENET, RANDOM, BackboneSpec, parse_options

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "BACKBONES",
    "IMAGENET",
    "RANDOM",
    "build",
    "check",
    "check_options",
    "is_file",
    "names",
    "weights_path",
]


def names() -> tuple[str, ...]:
    """Names of the backbones."""
    return tuple(BACKBONES)


def is_file(weights: str) -> bool:
    """Whether weights are given as a file and not by name."""
    return weights not in (IMAGENET, RANDOM) and (Path(weights).suffix != "" or Path(weights).name != weights)


def weights_path(name: str, weights: str) -> Path | None:
    """The file that holds the weights, None for random ones."""
    if weights == RANDOM:
        return None
    imagenet = BACKBONES[name].imagenet
    return imagenet.path if weights == IMAGENET and imagenet is not None else Path(weights)


def check(name: str, weights: str | None = None, options: str | None = None) -> None:
    """Checks that a backbone can be built, without importing TensorFlow; downloads its weights if need be.

    Args:
        name: name of the backbone.
        weights: name of its weights, or a file; None for its default ones.
        options: its options, as `parse_options` reads them.

    Raises:
        ValueError: if there is no such backbone, weights or option, or if the file of the weights is missing
            and cannot be downloaded.
    """
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} is unknown; expected one of {', '.join(BACKBONES)}")
    spec = BACKBONES[name]
    check_options(name, options)
    weights = weights or spec.default_weights
    if is_file(weights):
        _check_file(name, Path(weights))
    elif weights not in spec.weights:
        expected = ", ".join((*spec.weights, f"a file ({' or '.join(spec.file_endings)})"))
        raise ValueError(f"backbone {name!r} has no weights {weights!r}; expected one of {expected}")
    elif weights == IMAGENET and spec.imagenet is not None:
        try:
            spec.imagenet.provide()
        except ValueError as error:
            raise ValueError(f"the imagenet weights of backbone {name!r} are missing; {error}") from error


def check_options(name: str, options: str | None) -> dict[str, Any]:
    """The options of a backbone by name, the defaults included.

    Raises:
        ValueError: if it takes none of that name, or a value is not valid.
    """
    kind = BACKBONES[name].options
    if kind is None:
        if options:
            raise ValueError(f"backbone {name!r} has no options; expected it to be left out")
        return {}
    return asdict(parse_options(options or "", kind))


def _check_file(name: str, path: Path) -> None:
    endings = BACKBONES[name].file_endings
    if path.suffix not in endings:
        made = ""
        if name == "bn_inception" and path.suffix == ".pth":
            made = "; convert it by python -m ccp_dml.models.backbones.convert bn_inception"
        raise ValueError(f"expected a file that ends in {' or '.join(endings)}{made}")
    if not path.is_file():
        raise ValueError(f"expected an existing file; found none at {path.absolute()}")


def build(
    name: str,
    weights: str | None = None,
    *,
    image_size: int | None = None,
    seed: int = 0,
    freeze_batch_norm: bool | None = None,
    layer: str | None = None,
    frozen_layers: Sequence[str] = (),
    options: str | None = None,
    load: bool = True,
) -> tf.keras.Model:
    """Builds a backbone.

    Args:
        name: name of the backbone.
        weights: name of its weights, or a file; None for its default ones.
        image_size: side of its images if it is known, which lets XLA compile the model; None for any H and W.
        seed: of random weights.
        freeze_batch_norm: whether batch normalisation stays as it is, in training too; None: unless the
            weights are random.
        layer: the layer whose output is the feature map; None for the last one.
        frozen_layers: regular expressions; a layer whose name one of them matches from its beginning is not
            trained.
        options: of the network, as `parse_options` reads them.
        load: False leaves the weights as they were initialised, for a model that is restored afterwards; the
            file is not needed then.

    Returns:
        A model named `name` from float32 RGB images [B, H, W, 3] in 0..255 to a feature map [B, h, w, F].

    Raises:
        ValueError: see `check`; or if there is no such layer, or an expression matches none.
    """
    if load or name not in BACKBONES:
        check(name, weights, options)
    import tensorflow as tf

    from ccp_dml.models.layers import PixelScaling

    spec = BACKBONES[name]
    path = weights_path(name, weights or spec.default_weights)
    if image_size is not None and image_size < spec.min_image_size:
        raise ValueError(
            f"backbone {name!r} takes images of {spec.min_image_size} pixels at least; found {image_size}"
        )
    images = tf.keras.Input((image_size, image_size, 3), name="images")
    scaled = PixelScaling(**asdict(spec.pixel_scaling), name="pixel_scaling")(images)
    features = _function(spec.target)(
        scaled,
        frozen_norm=path is not None if freeze_batch_norm is None else freeze_batch_norm,
        seed=seed,
        **check_options(name, options),
    )
    model = tf.keras.Model(images, features, name=name)
    if path is not None and load:
        _load(model, spec, path)
    if spec.finish is not None:
        _function(spec.finish)(model)
    if layer is not None:
        model = tf.keras.Model(images, _find(model, layer).output, name=name)
    _freeze(model, frozen_layers)
    return model


def _load(model: tf.keras.Model, spec: BackboneSpec, path: Path) -> None:
    from ccp_dml.models.backbones.weights import load_weights

    if path.suffix == H5 and spec.h5_loader is not None:
        _function(spec.h5_loader)(model, path)
    else:
        load_weights(model, path)


def _find(model: tf.keras.Model, name: str) -> tf.keras.layers.Layer:
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0.0)
        raise ValueError(f"{name!r} is no layer of {model.name!r}; near names are {', '.join(near)}")
    return layers[name]


def _freeze(model: tf.keras.Model, patterns: Sequence[str]) -> None:
    for pattern in patterns:
        layers = [layer for layer in model.layers if layer.weights and re.match(pattern, layer.name)]
        if not layers:
            names = [layer.name for layer in model.layers if layer.weights]
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.0)
            raise ValueError(
                f"{pattern!r} matches no layer of {model.name!r} that has weights; "
                f"near names are {', '.join(near)}"
            )
        for layer in layers:
            layer.trainable = False


def _function(target: str) -> Callable[..., Any]:
    module, function = target.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
