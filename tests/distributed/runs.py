"""Short runs of a small network on one or several replicas, with their gradients, and their comparison."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.distributed.strategy import distributed_batches
from ccp_dml.distributed.workers import Workers
from ccp_dml.models.embedding_model import synchronize_batch_norm
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.finite import FiniteGuard
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from tests.losses.cases import SIZE, LossCase

INPUT, BATCH = 6, 8
# Relative change of the first weights by a few units in the last place, like the effect of rounding.
NUDGE = 2.0**-21
# Most that the rounding of a whole run may do, as a multiple of the effect of a nudge.
ROUNDINGS = 16.0
# Without hinges, which rounding might open or close, and roots of distances near 0.
SMOOTH = {"distance": "squared_euclidean", "positive_margin": -1.0, "negative_margin": 100.0}
# Neither the first half of the batch nor any quarter of it has a positive pair.
UNBALANCED = (0, 1, 2, 3, 0, 0, 1, 1)


def images_and_labels(step: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a batch of vectors [8, 6], and classes and image ids int32 [8, 2]."""
    random = np.random.default_rng(step)
    classes = np.array(UNBALANCED) if step % 2 == 0 else random.permutation(np.arange(BATCH) % 4)
    values = random.normal(size=(BATCH, INPUT)) + 0.3 * classes[:, np.newaxis]
    return values.astype(np.float32), np.stack([classes, 8 * step + np.arange(BATCH)], 1).astype(np.int32)


def batches(strategy: tf.distribute.Strategy, count: int, bad_step: int | None = None) -> Any:
    """Returns the stream of `images_and_labels`, repeated after `count` steps; one step may have a NaN."""
    made = [images_and_labels(step) for step in range(count)]
    values, labels = np.stack([v for v, _ in made]), np.stack([n for _, n in made])
    if bad_step is not None:
        values[bad_step, 1] = np.nan

    def local(first_step: int, worker: int, workers: int, replicas: int) -> tf.data.Dataset:
        rows = BATCH // workers
        chosen = slice(worker * rows, (worker + 1) * rows)
        dataset = tf.data.Dataset.from_tensor_slices((values[:, chosen], labels[:, chosen])).repeat()
        return dataset.skip(first_step).unbatch().batch(rows // replicas, drop_remainder=True)

    if strategy.num_replicas_in_sync == 1:
        return lambda first_step: local(first_step, 0, 1, 1)
    return distributed_batches(strategy, local)


def network(batch_norm: bool = False, regularized: bool = False) -> tf.keras.Model:
    """Makes a network with equal weights at every call."""
    initial = [tf.keras.initializers.GlorotNormal(seed=seed) for seed in (1, 2)]
    regularizer = tf.keras.regularizers.L2(0.1) if regularized else None
    first = tf.keras.layers.Dense(
        5, "tanh", kernel_initializer=initial[0], kernel_regularizer=regularizer, input_shape=[INPUT]
    )
    norm = [tf.keras.layers.BatchNormalization()] if batch_norm else []
    # A bias could have a gradient of exactly 0, which then consists of rounding only.
    last = tf.keras.layers.Dense(SIZE, use_bias=False, kernel_initializer=initial[1])
    return tf.keras.Sequential([first, *norm, last])


def nudge_weights(model: tf.keras.Model, nudge: float) -> None:
    """Multiplies weights by 1 + nudge and 1 - nudge in turn."""
    for variable in model.trainable_variables:
        signs = np.where(np.arange(variable.shape.num_elements()) % 2, 1.0, -1.0)
        variable.assign(variable * (1.0 + nudge * signs.reshape(variable.shape)))


class Recorder(tf.Module):
    """A transform that keeps a copy of the gradients on every replica and returns them unchanged."""

    def __init__(self, variables: list[tf.Variable]) -> None:
        super().__init__(name="recorder")
        self.copies = [replicas.per_replica_state(tf.zeros(variable.shape)) for variable in variables]

    def __call__(self, gradients: list[Any], variables: list[tf.Variable]) -> list[Any]:
        for copy, gradient in zip(self.copies, gradients):
            copy.assign(tf.zeros_like(copy) if gradient is None else gradient)
        return gradients


@dataclass
class Run:
    """A run with its gradients.

    Attributes:
        trainer: the trainer.
        gradients: for every step, the gradient of every trained variable.
    """

    trainer: Trainer
    gradients: list[list[np.ndarray]] = field(default_factory=list)

    @property
    def values(self) -> list[np.ndarray]:
        """Values of all variables of model and loss."""
        return [variable.numpy() for variable in self._variables]

    @property
    def figures(self) -> dict[str, np.ndarray]:
        """Values and gradients, by name."""
        found = {f"value {i}": value for i, value in enumerate(self.values)}
        return found | {
            f"step {step}, gradient {i}": gradient
            for step, gradients in enumerate(self.gradients)
            for i, gradient in enumerate(gradients)
        }

    def copies(self) -> list[list[np.ndarray]]:
        """Returns the copies of every variable on the replicas."""
        return [
            [copy.numpy() for copy in getattr(variable, "values", [variable])] for variable in self._variables
        ]

    @property
    def _variables(self) -> list[tf.Variable]:
        return [*self.trainer.model.variables, *self.trainer.loss.variables]


def run(
    strategy: tf.distribute.Strategy,
    case: LossCase,
    steps: int,
    *,
    optimizer: str = "sgd",
    rate: float = 0.01,
    model: Any = network,
    epochs: int = 1,
    bad_step: int | None = None,
    nudge: float = 0.0,
    chunk_size: int = 1,
    jit_compile: bool = False,
    guard: FiniteGuard | None = None,
    folder: Path | None = None,
) -> Run:
    """Trains from fixed weights, which may be nudged, or from the newest checkpoint in a folder."""
    replicated = strategy.num_replicas_in_sync > 1
    with strategy.scope() if replicated else contextlib.nullcontext():
        embedding_model = model()
        if replicated:
            synchronize_batch_norm(embedding_model)
        nudge_weights(embedding_model, nudge)
        loss = case.build()
        variables = [*embedding_model.trainable_variables, *loss.trainable_variables]
        recorder = Recorder(variables)
        make = functools.partial(make_optimizer, optimizer)
        groups = OptimizerGroups(make, [VariableGroup(variables)], rate)
        step = TrainStep(
            embedding_model, loss, groups, transforms=[recorder], guard=guard, jit_compile=jit_compile
        )
    trainer = Trainer(
        step,
        batches(strategy, steps, bad_step),
        TrainingOptions(steps_per_epoch=steps, chunk_size=chunk_size),
        checkpoints=Checkpoints(folder, workers=Workers(strategy if replicated else None)),
    )
    result = Run(trainer)

    def record(batch: int, logs: Any = None) -> None:
        result.gradients.append([copy.numpy() for copy in recorder.copies])

    trainer._callbacks.append(tf.keras.callbacks.LambdaCallback(on_train_batch_end=record))
    trainer.restore()
    trainer.fit(epochs)
    return result


def assert_same(found: Run, expected: Run, nudged: Run, nudge: float = NUDGE) -> None:
    """Raises if two runs differ by more than rounding does, at any step or in any variable.

    Processors and numbers of replicas round differently, and differences grow during a run. The run with
    nudged weights shows by how much, at each step.

    Args:
        found: the run to check.
        expected: a run that should be the same.
        nudged: `expected` again, with nudged weights.
        nudge: size of a few units in the last place of the dtype of the run.
    """
    assert len(found.gradients) == len(expected.gradients) == len(nudged.gradients)
    growth = nudge
    for step, gradients in enumerate(zip(found.gradients, expected.gradients, nudged.gradients)):
        rows = [_deviations(*tensors) for tensors in zip(*gradients)]
        growth = max(growth, *(of_nudge for _, of_nudge in rows))
        worst = max(deviation for deviation, _ in rows)
        assert worst <= ROUNDINGS * growth, f"step {step}: {worst:.2g}, after a nudge {growth:.2g}"
    assert_same_values(found, expected, nudged, growth)


def assert_same_values(found: Run, expected: Run, nudged: Run, growth: float = NUDGE) -> None:
    """Compares variables as `assert_same` does; the copies of all replicas have to be equal."""
    for number, tensors in enumerate(zip(found.values, expected.values, nudged.values)):
        deviation, of_nudge = _deviations(*tensors)
        bound = ROUNDINGS * max(growth, of_nudge)
        assert deviation <= bound, f"variable {number}: {deviation:.2g}, expected at most {bound:.2g}"
    for copies in found.copies():
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


Figures = dict[str, np.ndarray]


def assert_same_figures(found: Figures, expected: Figures, nudged: Figures) -> None:
    """Raises if figures of two runs differ by more than rounding does; integers have to be equal."""
    assert set(found) == set(expected) == set(nudged)
    growth, deviations = NUDGE, {}
    for name, values in expected.items():
        if np.issubdtype(values.dtype, np.integer):
            np.testing.assert_array_equal(found[name], values, err_msg=name)
            np.testing.assert_array_equal(nudged[name], values, err_msg=name)
        else:
            deviations[name], of_nudge = _deviations(found[name], values, nudged[name])
            growth = max(growth, of_nudge)
    worst = max(deviations, key=lambda name: deviations[name])
    assert deviations[worst] <= ROUNDINGS * growth, f"{worst}: {deviations[worst]:.2g}, {growth:.2g}"


def _deviations(found: np.ndarray, expected: np.ndarray, nudged: np.ndarray) -> tuple[float, float]:
    """Returns norms of the differences from `expected`, relative to its norm unless that is 0."""
    size = float(np.linalg.norm(expected)) or 1.0
    return float(np.linalg.norm(found - expected)) / size, float(np.linalg.norm(nudged - expected)) / size
