"""The embedding model of a run, and the settings of TensorFlow that it is built with."""

from __future__ import annotations

import gc
from collections.abc import Callable

import tensorflow as tf

from ccp_dml.errors import UserError
from ccp_dml.models.embedding_model import build_embedding_model
from ccp_dml.models.options import ModelOptions
from ccp_dml.options import options_of
from ccp_dml.training.options import TrainingOptions

# Called as `inference(images, training=False)`, like a Keras model.
Inference = Callable[..., tf.Tensor]

# Options that a message about the backbone shows.
_SHOWN = ("backbone", "backbone_weights", "backbone_layer", "frozen_layers", "pooling")


def set_up_tensorflow(options: TrainingOptions, seed: int) -> None:
    """Sets seed, determinism and precision of the whole process; TensorFlow has no narrower settings."""
    tf.keras.utils.set_random_seed(seed)
    wanted = options.deterministic
    if wanted or (wanted is None and not tf.config.list_physical_devices("GPU")):
        tf.config.experimental.enable_op_determinism()
    tf.keras.mixed_precision.set_global_policy(options.mixed_precision)
    # A GPU would round the factors of float32 products to 10 bits, those of distances included.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def build_model(
    options: ModelOptions, image_size: int | None, seed: int, *, load: bool = True
) -> tf.keras.Model:
    """Builds the embedding model; its backbone has its initial weights unless `load` is False.

    Raises:
        UserError: if an option does not fit the backbone, or a file of weights is damaged.
    """
    try:
        return build_embedding_model(
            options.backbone,
            weights=options.backbone_weights,
            embedding_size=options.embedding_size,
            pooling=options.pooling,
            image_size=image_size,
            seed=seed,
            freeze_batch_norm=options.freeze_batch_norm,
            layer=options.backbone_layer,
            frozen_layers=options.frozen_layers,
            options=options.backbone_options,
            load=load,
        )
    except ValueError as error:
        values = [(declared, getattr(options, declared.name)) for declared in options_of(options)]
        flags = [
            f"--{declared.written(value)}"
            for declared, value in values
            if declared.name in _SHOWN and value not in (None, ())
        ]
        raise UserError(f"{' '.join(flags)}: {error}") from error


def compiled_inference(model: tf.keras.Model, image_size: int | None) -> Inference:
    """Compiles a model in inference mode, once for all batch sizes."""

    @tf.function(input_signature=[tf.TensorSpec([None, image_size, image_size, 3], tf.float32)])
    def infer(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return lambda images, training=False: infer(images)


def forget_models() -> None:
    """Frees the memory that TensorFlow keeps of unused models, before the next one is built."""
    tf.keras.backend.clear_session()
    gc.collect()
