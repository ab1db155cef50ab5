"""Backbones of the user: a function on the import path, or a saved Keras model. TensorFlow only to build."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import re
import sys
from collections.abc import Callable
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccp_dml.models.backbones.specs import H5, OWN, BackboneSpec

if TYPE_CHECKING:
    import tensorflow as tf

_HERE = "ccp_dml.models.backbones.user_models"
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_FILES = (".keras", H5)
_SPEC = BackboneSpec(
    target="",
    default_image_size=224,
    pixel_scaling=None,
    min_image_size=1,
    file_endings=(H5,),
    h5_loader="ccp_dml.models.backbones.keras_applications:load_keras_h5",
    named=(OWN,),
)


def is_function(value: str) -> bool:
    """True if a value has the form `module:function`."""
    return _FUNCTION.fullmatch(value) is not None


def is_saved_model(value: str) -> bool:
    """True if a value is a path: it has a separator, the ending of a Keras file, or names a folder."""
    return os.sep in value or value.endswith(_FILES) or os.path.isdir(value)


def function_spec(value: str) -> BackboneSpec:
    """Returns the spec of `module:function`.

    Raises:
        ValueError: if the module is not on the import path or in the current folder.
    """
    _module_file(value)
    return dataclasses.replace(_SPEC, target=f"{_HERE}:call_function", arguments={"function": value})


def saved_model_spec(path: str) -> BackboneSpec:
    """Returns the spec of a saved Keras model.

    Raises:
        ValueError: if there is none.
    """
    folder = Path(path)
    if not folder.exists():
        raise ValueError("expected a saved Keras model; there is no such file or folder")
    if folder.is_dir() and not (folder / "saved_model.pb").is_file():
        raise ValueError("expected the folder of a SavedModel; it has no saved_model.pb")
    if folder.is_dir() and not (folder / "keras_metadata.pb").is_file():
        raise ValueError(
            "the SavedModel was not written by Keras, as it has no keras_metadata.pb, and its layers are "
            "unknown; expected a folder that model.save(path, save_format='tf') has written, or a .keras file"
        )
    if folder.is_file() and folder.suffix not in _FILES:
        raise ValueError(f"expected a folder, or a file that ends in {' or '.join(_FILES)}")
    return dataclasses.replace(_SPEC, target=f"{_HERE}:load_saved_model", arguments={"path": path})


def source_of(value: str) -> dict[str, str] | None:
    """Returns name, file and SHA-256 of the user's backbone; None if a value is no such backbone.

    Of a package, only the file of the module itself counts.

    Raises:
        ValueError: if it is missing.
    """
    if is_saved_model(value):
        saved_model_spec(value)
        file = Path(value)
    elif is_function(value):
        file = _module_file(value)
    else:
        return None
    digest = hashlib.sha256()
    for part in sorted(file.rglob("*")) if file.is_dir() else [file]:
        if part.is_file():
            digest.update(part.relative_to(file).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(part.read_bytes()).digest())
    return {"name": value, "file": str(file.absolute()), "sha256": digest.hexdigest()}


def call_function(images: tf.Tensor, *, frozen_norm: bool, seed: int, function: str) -> tf.Tensor:
    """Applies the model that the user's function returns; see docs/backbones.md for its signature.

    Raises:
        ValueError: if there is no such function, it fails, or it does not return such a model.
    """
    import tensorflow as tf

    tf.keras.utils.set_random_seed(seed)
    try:
        model = _import(function)(tuple(images.shape[1:3]))
    except (TypeError, ValueError, ImportError, AttributeError) as error:
        raise ValueError(f"{function} failed: {type(error).__name__}: {error}") from error
    return apply_model(model, images, frozen_norm=frozen_norm, source=f"the result of {function}")


def load_saved_model(images: tf.Tensor, *, frozen_norm: bool, seed: int, path: str) -> tf.Tensor:
    """Applies a saved Keras model.

    Raises:
        ValueError: if it cannot be loaded, or is not a model from images to features.
    """
    import tensorflow as tf

    from ccp_dml.models.backbones.weights import check_hdf5, reading

    with reading(f"{path} cannot be loaded as a Keras model"):
        if path.endswith(H5):
            check_hdf5(path)
            _refuse_lambdas(path)
        model = tf.keras.models.load_model(path, compile=False)
    return apply_model(model, images, frozen_norm=frozen_norm, source=path)


def _refuse_lambdas(path: str) -> None:
    """Raises `ValueError` for an HDF5 file with a `Lambda` layer, whose code Keras would run.

    Keras itself refuses them in .keras files.
    """
    import h5py

    with h5py.File(path, "r") as file:
        config = file.attrs.get("model_config")
    if config is None:
        raise ValueError("it holds weights alone; expected a file of model.save")
    found: list[str] = []
    json.loads(config, object_hook=lambda item: found.append(str(item.get("class_name"))))
    if "Lambda" in found:
        raise ValueError("it holds the code of a Lambda layer; expected other layers only")


def apply_model(model: tf.keras.Model, images: tf.Tensor, *, frozen_norm: bool, source: str) -> tf.Tensor:
    """Applies the layers of a Keras model, which are shared, to images [B, H, W, 3] in 0..255.

    Args:
        model: a model from images to features, [B, h, w, F] or [B, F]. One that is not made of a graph of
            layers, such as a subclass, becomes a single layer.
        images: a Keras input.
        frozen_norm: True to never train its batch normalisation.
        source: origin of the model, for messages.

    Returns:
        The features.

    Raises:
        ValueError: if it is not such a model, or does not take images of this size.
    """
    import tensorflow as tf

    if not isinstance(model, tf.keras.Model):
        raise ValueError(f"{source} is no backbone. Expected a tf.keras.Model. Received: {model!r}")
    try:
        if getattr(model, "_is_graph_network", False):
            shapes = [tuple(item.shape) for item in model.inputs]
            if len(shapes) != 1 or not tf.TensorShape(shapes[0]).is_compatible_with(images.shape):
                raise ValueError(f"its inputs have the shapes {shapes}")
            # The layers themselves, not copies: names, weights and gradients are those of the model.
            features = tf.keras.models.clone_model(model, images, clone_function=lambda layer: layer).output
        else:
            features = model(images)
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"{source} does not take images of the shape {tuple(images.shape)}, which --image_size sets: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    if not tf.is_tensor(features) or features.shape.rank not in (2, 4) or features.shape[-1] is None:
        raise ValueError(
            f"{source} is no backbone. Expected one output, features [B, h, w, F] or [B, F], F being known. "
            f"Received: {features!r}"
        )
    if frozen_norm:
        for layer in model.submodules:
            if isinstance(layer, tf.keras.layers.BatchNormalization):
                layer.trainable = False
    return features


def _search_path() -> list[str]:
    """The import path, the current folder included; the latter comes last, so that it hides no package."""
    return [*sys.path, os.getcwd()]


def _module_file(value: str) -> Path:
    """The file of the module of `module:function`; finds it without running any of it."""
    module = value.partition(":")[0]
    path, name, found = _search_path(), "", None
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        found = PathFinder.find_spec(name, path)
        if found is None:
            raise ValueError(
                f"there is no module {name!r} on the import path or in the current folder, {os.getcwd()}; "
                "expected MODULE:FUNCTION; run the command in its folder, or add that to PYTHONPATH"
            )
        path = list(found.submodule_search_locations or [])
    if found is None or found.origin is None or not os.path.isfile(found.origin):
        raise ValueError(f"the module {module!r} has no file; expected a module with a function")
    return Path(found.origin)


def _import(value: str) -> Callable[..., Any]:
    module, _, name = value.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise ValueError(f"the module {module!r} has no function {name!r}")
    return found
