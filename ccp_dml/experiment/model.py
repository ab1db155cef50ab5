"""The embedding model of a run: settings of TensorFlow, construction, weights on disk."""

from __future__ import annotations

import gc
import math
import os
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from ccp_dml import files
from ccp_dml.distributed.tables import gathered_tables
from ccp_dml.distributed.workers import Workers
from ccp_dml.errors import UserError
from ccp_dml.kinds import ImageSize, height_and_width
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.backbones.keras_applications import load_keras_h5
from ccp_dml.models.embedding_model import build_embedding_model
from ccp_dml.models.options import ModelOptions
from ccp_dml.options import options_of
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.options import TrainingOptions

# Called as `inference(images, training=False)`, like a Keras model.
Inference = Callable[..., tf.Tensor]

# Options that a message about the backbone shows.
_SHOWN = ("backbone", "backbone_weights", "backbone_layer", "frozen_layers", "pooling")


_BEST_WEIGHTS = "best"
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_KERAS_FILES = (".h5", ".hdf5")
_READ_ERRORS = (tf.errors.OpError, AssertionError, ValueError, IndexError, RuntimeError, OSError, KeyError)


def set_up_tensorflow(options: TrainingOptions, seed: int) -> None:
    """Sets seed, determinism and precision of the whole process; TensorFlow has no narrower settings."""
    tf.keras.utils.set_random_seed(seed)
    wanted = options.deterministic
    if wanted or (wanted is None and not tf.config.list_physical_devices("GPU")):
        tf.config.experimental.enable_op_determinism()
    tf.keras.mixed_precision.set_global_policy(options.mixed_precision)
    # A GPU would round the factors of float32 products to 10 bits, those of distances included.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def devices_in_words() -> str:
    """Returns the devices that TensorFlow computes on, in words; names a GPU that it cannot use."""
    gpus = tf.config.list_physical_devices("GPU")
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    if names:
        return ", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names)))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = f"CPU, {cores} cores"
    if _NVIDIA_DRIVER.exists():
        found += (
            "; there is a GPU of NVIDIA, but TensorFlow cannot load CUDA: "
            "`pip install 'tensorflow[and-cuda]'` in the version that is installed"
        )
    return found


def build_model(
    options: ModelOptions, image_size: ImageSize | None, seed: int, *, load: bool = True
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


def compiled_inference(model: tf.keras.Model, image_size: ImageSize | None) -> Inference:
    """Compiles a model in inference mode, once for all batch sizes."""
    sides = (None, None) if image_size is None else height_and_width(image_size)

    @tf.function(input_signature=[tf.TensorSpec([None, *sides, 3], tf.float32)])
    def infer(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return lambda images, training=False: infer(images)


def training_bytes(model: tf.keras.Model) -> int:
    """Estimates the memory that one image takes in a training step, in bytes.

    Backpropagation needs the outputs of the layers that have weights, from the first trained layer on. That
    is a lower bound: workspaces, gradients and copies come on top of it.
    """
    layers = _output_bytes(model)
    trained = (number for number, (layer, _) in enumerate(layers) if layer.trainable_weights)
    first = next(trained, len(layers))
    return sum(size for layer, size in layers[first:] if layer.weights)


def inference_bytes(model: tf.keras.Model) -> int:
    """Estimates the memory that one image takes in inference: the largest output of a layer, in bytes."""
    return max(size for _, size in _output_bytes(model))


def _output_bytes(model: tf.keras.Model) -> list[tuple[tf.keras.layers.Layer, int]]:
    """The layers of a model and of the models in it, in order, with the bytes of their outputs for one image.

    Sizes that are not known count as one. Of a model without a graph of layers, only the outputs count.
    """
    # A layer may also belong to another model, whose outputs take no memory.
    nodes = {id(node) for level in model._nodes_by_depth.values() for node in level}
    found = []
    for layer in model.layers:
        if getattr(layer, "_is_graph_network", False):
            found += _output_bytes(layer)
            continue
        calls = [node for node in layer.inbound_nodes if id(node) in nodes]
        outputs = [output for node in calls for output in tf.nest.flatten(node.outputs)]
        sizes = [math.prod(size or 1 for size in item.shape) * item.dtype.size for item in outputs]
        found.append((layer, sum(sizes)))
    return found


def forget_models() -> None:
    """Frees the memory that TensorFlow keeps of unused models, before the next one is built."""
    tf.keras.backend.clear_session()
    gc.collect()


def save_weights(directory: RunDirectory, model: tf.keras.Model, loss: MetricLoss, workers: Workers) -> None:
    """Writes the weights that are evaluated and exported; all workers call it, the chief writes."""
    checkpoint = tf.train.Checkpoint(model=model, loss=loss)
    with gathered_tables(checkpoint):
        if not workers.is_chief:
            return
        directory.checkpoints.mkdir(exist_ok=True)
        checkpoint.write(str(directory.checkpoints / _BEST_WEIGHTS))
        files.to_disk(directory.checkpoints)


def load_run_weights(directory: RunDirectory, model: tf.keras.Model) -> None:
    """Reads the weights of the model that `save_weights` wrote.

    Raises:
        UserError: if the file is missing or belongs to another model.
    """
    path = directory.checkpoints / _BEST_WEIGHTS
    try:
        _read_checkpoint(path, model)
    except _READ_ERRORS as error:
        raise UserError(f"{path}: expected the weights of this run: {_reason(error)}") from error


def load_initial_weights(path: str, model: tf.keras.Model) -> None:
    """Reads weights of the complete embedding model, its linear head included.

    Args:
        path: the folder of a finished run, a TensorFlow checkpoint that holds a `model`, or an `.h5` file of
            Keras' `model.save_weights`.
        model: an embedding model of the same shape.

    Raises:
        UserError: if it cannot be read or belongs to another model.
    """
    try:
        if os.path.isdir(path):
            _read_checkpoint(RunDirectory(path).checkpoints / _BEST_WEIGHTS, model)
        elif path.endswith(_KERAS_FILES):
            load_keras_h5(model, path)
        else:
            _read_checkpoint(Path(path.removesuffix(".index")), model)
    except _READ_ERRORS as error:
        raise UserError(
            f"--initial_weights={path}: expected weights of the same embedding model: {_reason(error)}"
        ) from error


def _read_checkpoint(path: Path, model: tf.keras.Model) -> None:
    with files.without_patterns(path) as readable:
        status = tf.train.Checkpoint(model=model).read(str(readable))
        status.assert_existing_objects_matched().expect_partial()


def _reason(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]
