"""Backbones: `resolve` gives the spec of a value of --backbone, `check` looks at it, `build` makes the model.

A value is a name of `specs.BACKBONES`, `keras:NAME`, `module:function`, or the path of a saved Keras model.
To add a name, write its function in a new module and add an entry to `specs.BACKBONES`. Only `build` imports
TensorFlow.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccp_dml.kinds import ImageSize, format_size, height_and_width
from ccp_dml.models.backbones import applications, user_models
from ccp_dml.models.backbones.options import parse_options
from ccp_dml.models.backbones.specs import BACKBONES, H5, IMAGENET, OWN, RANDOM, BackboneSpec

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
    "is_saved_model",
    "resolve",
    "source_of",
    "weights_path",
]


def resolve(value: str) -> BackboneSpec:
    """Returns the spec of a backbone.

    Args:
        value: a name, `keras:NAME`, `module:function`, or the path of a saved Keras model.

    Raises:
        ValueError: if there is no such backbone.
    """
    if value in BACKBONES:
        return BACKBONES[value]
    if value.startswith(applications.PREFIX):
        return applications.application_spec(value)
    if is_saved_model(value):
        return user_models.saved_model_spec(value)
    if user_models.is_function(value):
        return user_models.function_spec(value)
    raise ValueError(
        f"backbone {value!r} is unknown; expected one of {', '.join(BACKBONES)}, keras:NAME, such as "
        "keras:ConvNeXtTiny, MODULE:FUNCTION, or the path of a saved Keras model"
    )


def is_saved_model(value: str) -> bool:
    """True if a backbone is given as the path of a saved model."""
    named = value in BACKBONES or value.startswith(applications.PREFIX)
    return not named and user_models.is_saved_model(value)


def source_of(value: str) -> dict[str, str] | None:
    """Returns name, file and SHA-256 of the user's own backbone; None for all others.

    Raises:
        ValueError: if it is missing.
    """
    named = value in BACKBONES or value.startswith(applications.PREFIX)
    return None if named else user_models.source_of(value)


def check(name: str, weights: str | None = None, options: str | None = None) -> None:
    """Checks that a backbone can be built, and downloads its weights if necessary.

    Args:
        name: name of the backbone.
        weights: name of its weights, or a file; None for its default weights.
        options: its options as text, see `parse_options`.

    Raises:
        ValueError: if the backbone, its weights or an option is unknown, or the file of the weights is
            missing and cannot be downloaded.
    """
    spec = resolve(name)
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
    """Returns the options of a backbone by name, with defaults.

    Raises:
        ValueError: if an option is unknown, or a value is invalid.
    """
    kind = resolve(name).options
    if kind is None:
        if options:
            raise ValueError(f"backbone {name!r} has no options; expected it to be left out")
        return {}
    return dict(vars(parse_options(options or "", kind)))


def is_file(weights: str) -> bool:
    """True if weights are given as a file, False for a name."""
    return weights not in (IMAGENET, RANDOM, OWN) and (
        Path(weights).suffix != "" or Path(weights).name != weights
    )


def weights_path(name: str, weights: str) -> Path | None:
    """Returns the file that holds the weights; None for random ones and those that code provides."""
    if is_file(weights):
        return Path(weights)
    imagenet = resolve(name).imagenet
    return imagenet.path if weights == IMAGENET and imagenet is not None else None


def _check_file(name: str, path: Path) -> None:
    endings = resolve(name).file_endings
    if path.suffix not in endings:
        hint = ""
        if name == "bn_inception" and path.suffix == ".pth":
            hint = "; convert it by python -m ccp_dml.models.backbones.convert bn_inception"
        raise ValueError(f"expected a file that ends in {' or '.join(endings)}{hint}")
    if not path.is_file():
        raise ValueError(f"expected an existing file; found none at {path.absolute()}")


def build(
    name: str,
    weights: str | None = None,
    *,
    image_size: ImageSize | None = None,
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
        weights: name of its weights, or a file; None for its default weights.
        image_size: side of the images, or height and width, if known, which lets XLA compile the model; None
            for any H and W.
        seed: seed of random weights.
        freeze_batch_norm: True to never train batch normalisation; None for True unless the weights are
            random.
        layer: name of the layer whose output is the feature map; None for the last one.
        frozen_layers: regular expressions; layers whose name starts with a match are not trained.
        options: options of the network as text, see `parse_options`.
        load: False leaves the weights as they are initialised, for a model that is restored afterwards; the
            file of the weights need not exist then.

    Returns:
        A model named `name` from float32 RGB images [B, H, W, 3] in 0..255 to a feature map [B, h, w, F].

    Raises:
        ValueError: as `check`, or if there is no such layer, or an expression matches no layer.
    """
    if load:
        check(name, weights, options)
    import tensorflow as tf

    from ccp_dml.models.layers import PixelScaling

    spec = resolve(name)
    weights = weights or spec.default_weights
    path = weights_path(name, weights)
    sides = (None, None) if image_size is None else height_and_width(image_size)
    if image_size is not None and min(height_and_width(image_size)) < spec.min_image_size:
        raise ValueError(
            f"backbone {name!r} takes images of {spec.min_image_size} pixels at least; "
            f"found {format_size(image_size)}"
        )
    images = tf.keras.Input((*sides, 3), name="images")
    scaled = images
    if spec.pixel_scaling is not None:
        scaled = PixelScaling(**spec.pixel_scaling, name="pixel_scaling")(images)
    features = _load_function(spec.target)(
        scaled,
        frozen_norm=weights != RANDOM if freeze_batch_norm is None else freeze_batch_norm,
        seed=seed,
        **check_options(name, options),
        **spec.arguments,
    )
    model = tf.keras.Model(images, features, name=_model_name(name))
    if path is not None and load:
        _read_weights(model, spec, path)
    elif weights == IMAGENET and load and spec.imagenet_loader is not None:
        _load_function(spec.imagenet_loader)(model, **spec.arguments)
    if spec.finish is not None:
        _load_function(spec.finish)(model)
    return _cut_and_frozen(model, layer, frozen_layers)


def from_model(
    model: tf.keras.Model,
    *,
    image_size: ImageSize | None = None,
    freeze_batch_norm: bool | None = None,
    layer: str | None = None,
    frozen_layers: Sequence[str] = (),
) -> tf.keras.Model:
    """Makes a backbone of any Keras model, which shares its layers; see `build` for the arguments.

    Args:
        model: a model from RGB images [B, H, W, 3] in 0..255 to features [B, h, w, F] or [B, F].
        image_size: side of the images, or height and width, if known.
        freeze_batch_norm: True or None to never train batch normalisation.
        layer: name of the layer whose output is the feature map; None for the last one.
        frozen_layers: regular expressions; layers whose name starts with a match are not trained.

    Raises:
        ValueError: if it is not such a model, there is no such layer, or an expression matches no layer.
    """
    import tensorflow as tf

    sides = (None, None) if image_size is None else height_and_width(image_size)
    images = tf.keras.Input((*sides, 3), name="images")
    frozen = freeze_batch_norm is not False
    features = user_models.apply_model(model, images, frozen_norm=frozen, source="the model")
    name = _model_name(getattr(model, "name", "backbone"))
    return _cut_and_frozen(tf.keras.Model(images, features, name=name), layer, frozen_layers)


def _cut_and_frozen(model: tf.keras.Model, layer: str | None, frozen_layers: Sequence[str]) -> tf.keras.Model:
    import tensorflow as tf

    if layer is not None:
        model = tf.keras.Model(model.input, _find_layer(model, layer).output, name=model.name)
    _freeze_layers(model, frozen_layers)
    return model


def _model_name(name: str) -> str:
    """A name that TensorFlow accepts: of a path its last part, and no colon."""
    return re.sub(r"\W", "_", Path(name).stem)


def _read_weights(model: tf.keras.Model, spec: BackboneSpec, path: Path) -> None:
    from ccp_dml.models.backbones.weights import load_weights

    if path.suffix == H5 and spec.h5_loader is not None:
        _load_function(spec.h5_loader)(model, path)
    else:
        load_weights(model, path)


def _find_layer(model: tf.keras.Model, name: str) -> tf.keras.layers.Layer:
    layers = {layer.name: layer for layer in model.layers}
    if name not in layers:
        near = difflib.get_close_matches(name, layers, n=3, cutoff=0.0)
        raise ValueError(f"{name!r} is no layer of {model.name!r}; near names are {', '.join(near)}")
    return layers[name]


def _freeze_layers(model: tf.keras.Model, patterns: Sequence[str]) -> None:
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


def _load_function(target: str) -> Callable[..., Any]:
    module, function = target.split(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
