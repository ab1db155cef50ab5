"""A training run that is small enough for a test to repeat it many times."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.data import balanced_batches, from_arrays
from ccp_dml.distributed.workers import Workers
from ccp_dml.evaluation import RetrievalMetrics
from ccp_dml.losses.ccp import CCP
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import PoolMemory, ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.controllers import EarlyStopping, ReduceOnPlateau, WarmUp
from ccp_dml.training.gradients import ProximalTerm, make_transforms
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import GradientOptions, OptimizerOptions, TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer

CLASSES, PER_CLASS, INPUT, SIZE, BATCH = 4, 5, 6, 3, 8


def images() -> tuple[np.ndarray, np.ndarray]:
    """Returns 20 vectors of 4 classes and their labels."""
    generator = np.random.default_rng(7)
    labels = np.repeat(np.arange(CLASSES), PER_CLASS)
    centers = generator.normal(size=[CLASSES, INPUT])
    values = centers[labels] + 0.5 * generator.normal(size=[len(labels), INPUT])
    return values.astype(np.float32), labels.astype(np.int32)


def batches(first_step: int) -> tf.data.Dataset:
    """Returns an endless stream whose elements are a function of the step."""
    values, labels = (tf.constant(array) for array in images())

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        picks = tf.random.stateless_uniform([BATCH], [3, step], 0, CLASSES * PER_CLASS, tf.int32)
        return tf.gather(values, picks), tf.gather(labels, picks)

    return tf.data.Dataset.counter(first_step).map(batch)


def batches_with_ids(first_step: int) -> tf.data.Dataset:
    """Returns the same stream with labels (class, image id); ids descend from 119."""
    values, labels = (tf.constant(array) for array in images())

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        picks = tf.random.stateless_uniform([BATCH], [3, step], 0, CLASSES * PER_CLASS, tf.int32)
        return tf.gather(values, picks), tf.stack([tf.gather(labels, picks), 119 - picks], 1)

    return tf.data.Dataset.counter(first_step).map(batch)


def model(hidden: int = 5) -> tf.keras.Model:
    """Makes a backbone (dense and batch normalisation) and head, with equal weights at every call."""
    return tf.keras.Sequential(
        [
            tf.keras.layers.Dense(
                hidden, kernel_initializer=_weights(1), name="backbone", input_shape=[INPUT]
            ),
            tf.keras.layers.BatchNormalization(name="normalization"),
            tf.keras.layers.Dense(SIZE, use_bias=False, kernel_initializer=_weights(2), name="head"),
        ]
    )


def _weights(seed: int) -> Any:
    return tf.keras.initializers.GlorotNormal(seed=seed)


def ccp_loss(proxies_per_class: int = 2) -> CCP:
    """Makes CCP around the contrastive loss, with equal proxies at every call."""
    base = Contrastive(positive_margin=0.1, negative_margin=0.8)
    loss = CCP(base, CLASSES, SIZE, proxies_per_class=proxies_per_class)
    shape = loss.proxies.embeddings.shape
    loss.proxies.embeddings.assign(tf.random.stateless_normal(shape, [5, 5]))
    return loss


def pool(network: tf.keras.Model, memory: PoolMemory | None = None) -> ProxyPool:
    """Makes a pool of the images: draw j takes the j-th image of each class."""
    values, _ = images()
    rows = np.arange(CLASSES) * PER_CLASS

    def draws(first: int, count: int) -> np.ndarray:
        return rows + (np.arange(first, first + count) % PER_CLASS)[:, None]

    return ProxyPool(draws, lambda picks: network(values[picks], training=False).numpy(), memory)


class Scores:
    """A validation score that rises and falls, a pure function of the weights."""

    def __init__(self, network: tf.keras.Model) -> None:
        self._network = network

    def __call__(self) -> dict[str, float]:
        total = sum(float(tf.reduce_sum(tf.abs(weight))) for weight in self._network.trainable_variables)
        return {"map_at_r": float(np.sin(40.0 * total))}


def trainer(
    *,
    optimizer: str = "adam",
    patience: int = 0,
    projections: dict[str, Any] | None = None,
    steps_per_epoch: int = 4,
    chunk_size: int = 3,
    warm_up: tuple[float, float] | None = None,
    averages: dict[str, float] | None = None,
    memory_steps: int = 0,
    plain: bool = False,
    jit_compile: bool = False,
    schedule: Any = "plateau",
    **options: Any,
) -> Trainer:
    """Makes a run with CCP, plateau schedule, early stopping and three optimizer groups.

    Args:
        optimizer: name of the optimizer.
        patience: of early stopping; 0 for never.
        projections: options of the projections that differ from the defaults here.
        steps_per_epoch: of the trainer.
        chunk_size: of the trainer.
        warm_up: number of epochs and factor on the learning rate.
        averages: options of the regularisation by averages of the weights.
        memory_steps: largest age of remembered embeddings; 0 for no memory.
        plain: without gradient transforms, schedule and early stopping.
        jit_compile: of the step.
        schedule: a controller, or None; by default `ReduceOnPlateau`.
        **options: further arguments of the trainer.
    """
    network, loss = model(), ccp_loss()
    memory = PoolMemory(119 - np.arange(CLASSES * PER_CLASS), SIZE, memory_steps) if memory_steps else None
    defaults = {"ccp_lambda": 0.05, "pool_size": 4, "ccp_reset_rule": "patience", "ccp_patience": 1}
    instances = AlternatingProjections(
        network.trainable_variables,
        loss.proxies,
        pool(network, memory),
        ProjectionOptions(**{**defaults, **(projections or {})}),
        normalization="lipschitz",
    )
    proximal = ProximalTerm(network.trainable_variables, instances.anchors, instances.proximal_coefficient)
    backbone = network.get_layer("backbone").trainable_variables
    rest = [*network.get_layer("normalization").trainable_variables, network.get_layer("head").kernel]
    groups = [VariableGroup(backbone), VariableGroup(rest), VariableGroup(loss.trainable_variables, 3.0)]
    gradients = GradientOptions(weight_decay=1e-3, clip_norm=1.0, clip_value=0.0, **(averages or {}))
    step = TrainStep(
        network,
        loss,
        OptimizerGroups(functools.partial(make_optimizer, optimizer), groups, 0.02),
        transforms=[]
        if plain
        else make_transforms(gradients, network.trainable_variables, proximal=proximal),
        jit_compile=jit_compile,
    )
    stopping = EarlyStopping([*network.variables, *loss.trainable_variables], patience=patience)
    if schedule == "plateau":
        schedule = ReduceOnPlateau(
            OptimizerOptions(learning_rate=0.02, plateau_patience=2, min_learning_rate=0)
        )
    controllers = [instances] if plain else [stopping, *([schedule] if schedule else []), instances]
    return Trainer(
        step,
        batches_with_ids if memory_steps else batches,
        TrainingOptions(steps_per_epoch=steps_per_epoch, chunk_size=chunk_size),
        warm_up=None if warm_up is None else WarmUp(warm_up[0], backbone, warm_up[1]),
        **{"validate": Scores(network), "controllers": controllers, **options},
    )


def created(folder: Path | None = None, strategy: tf.distribute.Strategy | None = None) -> Trainer:
    """Makes a run with CCP, plateau schedule and early stopping as a user does."""
    values, labels = images()
    source, workers = from_arrays(values, labels), Workers(strategy)
    with workers.scope():
        network, loss = model(), ccp_loss()
    metrics = RetrievalMetrics(values, labels)
    return Trainer.create(
        network,
        loss,
        lambda step: balanced_batches(source, 3, 2, first_step=step, strategy=strategy),
        TrainingOptions(steps_per_epoch=4, patience=3),
        optimizer=OptimizerOptions(learning_rate=0.02, learning_rate_schedule="plateau"),
        validate=lambda: metrics.scores(network),
        controllers=[AlternatingProjections.of_model(network, loss, values, labels)],
        checkpoints=Checkpoints(folder, workers=workers),
    )


def values(run: Trainer) -> list[np.ndarray]:
    """Returns the values of all variables of model and loss."""
    return [variable.numpy() for variable in [*run.model.variables, *run.loss.trainable_variables]]
