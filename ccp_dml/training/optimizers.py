"""Optimizers by name: those of Keras, and LAMB and Rectified Adam of TensorFlow Addons."""

from __future__ import annotations

import warnings
from typing import Any, Union

import tensorflow as tf

Optimizer = Union[tf.keras.optimizers.Optimizer, tf.keras.optimizers.legacy.Optimizer]  # noqa: UP007

_KERAS = "tensorflow.keras.optimizers"
# The classes of TensorFlow 2.8, with which the original ran. They update with fused kernels (twice as fast on
# a CPU), and Adam rounds 1 - beta_2 as in the original, which decides the last digits of a training run.
_KERAS_FUSED = "tensorflow.keras.optimizers.legacy"
_ADDONS = "tensorflow_addons.optimizers"

OPTIMIZERS: dict[str, str] = {
    "adadelta": f"{_KERAS_FUSED}:Adadelta",
    "adafactor": f"{_KERAS}:Adafactor",
    "adagrad": f"{_KERAS_FUSED}:Adagrad",
    "adam": f"{_KERAS_FUSED}:Adam",
    "adamax": f"{_KERAS_FUSED}:Adamax",
    "adamw": f"{_KERAS}:AdamW",
    "ftrl": f"{_KERAS_FUSED}:Ftrl",
    "lamb": f"{_ADDONS}:LAMB",
    "lion": f"{_KERAS}:Lion",
    "nadam": f"{_KERAS_FUSED}:Nadam",
    "radam": f"{_ADDONS}:RectifiedAdam",
    "rmsprop": f"{_KERAS_FUSED}:RMSprop",
    "sgd": f"{_KERAS_FUSED}:SGD",
}


def make_optimizer(name: str, learning_rate: float, **options: Any) -> Optimizer:
    """Creates an optimizer.

    Args:
        name: one of `OPTIMIZERS`, in any case.
        learning_rate: initial learning rate, positive.
        **options: further arguments of the optimizer, such as `momentum` of `sgd` or `beta_2` of `adam`.

    Returns:
        A Keras optimizer without slots; `OptimizerGroups` builds them.

    Raises:
        ValueError: if the name, the rate or an option is not one that exists.
    """
    key = name.lower()
    if key not in OPTIMIZERS:
        raise ValueError(f"The optimizer is {name!r}; one of {', '.join(OPTIMIZERS)} is expected.")
    if not learning_rate > 0:
        raise ValueError(f"The learning rate is {learning_rate}; a positive number is expected.")
    module, kind = OPTIMIZERS[key].split(":")
    if module == _KERAS:
        # The update ops are part of the step's graph; compiling each one apart only adds launches.
        options.setdefault("jit_compile", False)
    try:
        return _load(module, kind)(learning_rate=learning_rate, **options)
    except TypeError as error:
        raise ValueError(f"The optimizer {name!r} cannot be made with {sorted(options)}: {error}") from error


def _load(module: str, kind: str) -> Any:
    if module != _ADDONS:
        return getattr(tf.keras.optimizers.legacy if module == _KERAS_FUSED else tf.keras.optimizers, kind)
    # The package announces its end of life, and that it is not tested with this TensorFlow, on import.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow_addons.optimizers as addons
    return getattr(addons, kind)
