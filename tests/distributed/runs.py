"""Short runs of a small network on one or several replicas, whose gradients are written down."""

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
# A relative change of the first weights by a few units in the last place: what rounding does to a run.
NUDGE = 2.0**-21
# How much more than a nudge the rounding of all steps of a run may do.
ROUNDINGS = 16.0
# No hinge that rounding might open or close, and no root of a distance near 0: all pairs count, smoothly.
SMOOTH = {"distance": "squared_euclidean", "positive_margin": -1.0, "negative_margin": 100.0}
# The first half of a batch has no positive pair, nor does a quarter of it.
UNBALANCED = (0, 1, 2, 3, 0, 0, 1, 1)


def images_and_labels(step: int) -> tuple[np.ndarray, np.ndarray]:
    """A batch of vectors [8, 6], and classes and image ids int32 [8, 2]."""
    random = np.random.default_rng(step)
    classes = np.array(UNBALANCED) if step % 2 == 0 else random.permutation(np.arange(BATCH) % 4)
    values = random.normal(size=(BATCH, INPUT)) + 0.3 * classes[:, np.newaxis]
    return values.astype(np.float32), np.stack([classes, 8 * step + np.arange(BATCH)], 1).astype(np.int32)


def batches(strategy: tf.distribute.Strategy, count: int, bad_step: int | None = None) -> Any:
    """The stream of `images_and_labels`, which repeats itself after `count` steps; one may have a NaN."""
    made = [images_and_labels(step) for step in range(count)]
    values, labels = np.stack([v for v, _ in made]), np.stack([n for _, n in made])

    if bad_step is not None:
        values[bad_step, 1] = np.nan

    def own(first_step: int, worker: int, workers: int, local: int) -> tf.data.Dataset:
        rows = BATCH // workers
        mine = slice(worker * rows, (worker + 1) * rows)
        dataset = tf.data.Dataset.from_tensor_slices((values[:, mine], labels[:, mine])).repeat()
        return dataset.skip(first_step).unbatch().batch(rows // local, drop_remainder=True)

    if strategy.num_replicas_in_sync == 1:
        return lambda first_step: own(first_step, 0, 1, 1)
    return distributed_batches(strategy, own)


def network(batch_norm: bool = False, regularized: bool = False) -> tf.keras.Model:
    """A network with the same weights at every call."""
    initial = [tf.keras.initializers.GlorotNormal(seed=seed) for seed in (1, 2)]
    regularizer = tf.keras.regularizers.L2(0.1) if regularized else None
    first = tf.keras.layers.Dense(
        5, "tanh", kernel_initializer=initial[0], kernel_regularizer=regularizer, input_shape=[INPUT]
    )
    norm = [tf.keras.layers.BatchNormalization()] if batch_norm else []
    # Without a bias, whose gradient may be exactly 0 and then is all rounding.
    last = tf.keras.layers.Dense(SIZE, use_bias=False, kernel_initializer=initial[1])
    return tf.keras.Sequential([first, *norm, last])


def nudge_weights(model: tf.keras.Model, nudge: float) -> None:
    """Changes every weight relatively by a nudge, up and down in turn."""
    for variable in model.trainable_variables:
        signs = np.where(np.arange(variable.shape.num_elements()) % 2, 1.0, -1.0)
        variable.assign(variable * (1.0 + nudge * signs.reshape(variable.shape)))


class Recorder(tf.Module):
    """A transform that changes nothing and keeps a copy of the gradients on every replica."""

    def __init__(self, variables: list[tf.Variable]) -> None:
        super().__init__(name="recorder")
        self.copies = [replicas.per_replica_state(tf.zeros(variable.shape)) for variable in variables]

    def __call__(self, gradients: list[Any], variables: list[tf.Variable]) -> list[Any]:
        for copy, gradient in zip(self.copies, gradients):
            copy.assign(tf.zeros_like(copy) if gradient is None else gradient)
        return gradients


@dataclass
class Run:
    """A run that was made.

    Attributes:
        trainer: what trained.
        gradients: of every step, of every trained variable.
    """

    trainer: Trainer
    gradients: list[list[np.ndarray]] = field(default_factory=list)

    @property
    def values(self) -> list[np.ndarray]:
        """All that model and loss have learned or remember."""
        parts = (self.trainer.model, self.trainer.loss)
        return [variable.numpy() for part in parts for variable in part.variables]

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
        """The copies of every variable on the replicas."""
        parts = (self.trainer.model, self.trainer.loss)
        return [
            [copy.numpy() for copy in getattr(variable, "values", [variable])]
            for part in parts
            for variable in part.variables
        ]


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
    """Trains for epochs of some steps from fixed weights, nudged or not, or from the newest checkpoint."""
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

    def note(batch: int, logs: Any = None) -> None:
        result.gradients.append([copy.numpy() for copy in recorder.copies])

    trainer._callbacks.append(tf.keras.callbacks.LambdaCallback(on_train_batch_end=note))
    trainer.restore()
    trainer.fit(epochs)
    return result


def assert_same(found: Run, expected: Run, nudged: Run, nudge: float = NUDGE) -> None:
    """Two runs differ by no more than rounding does, at every step and in what they learn and remember.

    Rounding differs between processors and between numbers of replicas, and a run makes it grow: by how much
    at each step, the run whose first weights were nudged shows.

    Args:
        found: the run to check.
        expected: a run that should be the same.
        nudged: `expected` again, with this nudge.
        nudge: size of a few units in the last place of what the runs compute with.
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
    """The part of `assert_same` on what was learned; also, every replica has the same bits of it."""
    for number, tensors in enumerate(zip(found.values, expected.values, nudged.values)):
        deviation, of_nudge = _deviations(*tensors)
        bound = ROUNDINGS * max(growth, of_nudge)
        assert deviation <= bound, f"variable {number}: {deviation:.2g}, expected at most {bound:.2g}"
    for copies in found.copies():
        for copy in copies[1:]:
            np.testing.assert_array_equal(copy, copies[0])


Figures = dict[str, np.ndarray]


def assert_same_figures(found: Figures, expected: Figures, nudged: Figures) -> None:
    """The figures of two runs differ by no more than rounding does; those of integers are equal."""
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
    """Norms of the differences from `expected`, relative to its norm where that is not 0."""
    size = float(np.linalg.norm(expected)) or 1.0
    return float(np.linalg.norm(found - expected)) / size, float(np.linalg.norm(nudged - expected)) / size
