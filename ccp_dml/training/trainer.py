"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml import faults
from ccp_dml.distributed.workers import ALONE, Workers
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.batch_diagnostics import BatchDiagnostics
from ccp_dml.training.checkpoints import Saver, StopRequest
from ccp_dml.training.chunks import ChunkRunner
from ccp_dml.training.controllers import Controllers, EarlyStopping, Schedule
from ccp_dml.training.epoch_steps import EpochSteps
from ccp_dml.training.finite import FiniteGuard
from ccp_dml.training.gradients import GradientTransform
from ccp_dml.training.optimizers import OptimizerGroups, optimizer_of
from ccp_dml.training.phases import Phases
from ccp_dml.training.safe_points import SafePoints
from ccp_dml.training.step_parts import StepParts
from ccp_dml.training.train_step import TrainedLoss
from ccp_dml.training.wall_time import RESETS, VALIDATION, WallTime
from ccp_dml.training.warm_up import WarmUp

Batches = Callable[[int], Any]
Validate = Callable[[], dict[str, float]]


class Trainer:
    """Trains a model and a loss, in epochs of a fixed number of steps.

    At the end of an epoch, in this order: validation; early stopping, learning-rate schedule and projections
    look at the score of this very epoch; callbacks; checkpoint. The checkpoint comes last so that a run that
    is killed in between repeats the epoch's row of logs rather than losing it.

    Callbacks are ordinary Keras callbacks; `on_train_batch_end` comes after every chunk of steps, with the
    number of its last step, and `on_test_end` before proxies may change. The epoch logs are the means over
    the epoch of `loss`, of its parts, of `gradient_norm` (before clipping) and `embedding_norm`;
    `active_pairs` of the last batch; `learning_rate` of the last step; `images_per_second`, and
    `data_wait_share`, the share of the steps' time in which they waited for their batches; `step`; with
    projections `problem_instance` and `proximal_coefficient`, as they were during the epoch, and
    `proxy_staleness` where it was measured; and the validation's scores, prefixed by `val_`.

    Attributes:
        model: the embedding model.
        loss: the loss.
        step: int64 variable, steps made since the beginning of the run.
        wall_time: where the time goes.
        diagnostics: what `loss.diagnostics` said of the last batch of the last epoch, as arrays.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        loss: TrainedLoss,
        optimizer: OptimizerGroups,
        batches: Batches,
        *,
        steps_per_epoch: int,
        transforms: Sequence[GradientTransform] = (),
        validate: Validate | None = None,
        schedule: Schedule | None = None,
        stopping: EarlyStopping | None = None,
        projections: AlternatingProjections | None = None,
        warm_up: WarmUp | None = None,
        saver: Saver | None = None,
        guard: FiniteGuard | None = None,
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        chunk_size: int = 10,
        jit_compile: bool = False,
        strategy: tf.distribute.Strategy | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """Puts the parts together; `restore` and `fit` come next.

        With a distribution strategy, model, loss, optimizer and transforms are made in its scope; the trainer
        and all else, whose state is of the process and not of its replicas, outside.

        Args:
            model: images -> raw embeddings [B, D].
            loss: what is minimised, with the trainable variables of the model and its own.
            optimizer: groups that contain all of these variables.
            batches: `batches(first_step)` gives the endless stream of (images, labels) from that step on, a
                dataset; with several replicas a distributed one, see `distributed_batches`.
            steps_per_epoch: at least 1.
            transforms: applied to the gradients in this order; those that are modules are checkpointed.
            validate: scores the model after every epoch.
            schedule: sets `optimizer.learning_rate` before every step; None leaves it to whoever changes it.
            stopping: early stopping; its best weights are restored at the end.
            projections: problem instances of CCP; its proximal term belongs into `transforms`.
            warm_up: the first epochs, with frozen variables.
            saver: where to save, and when besides the end of an epoch and an interruption.
            guard: what happens to steps that are not finite; None: the first one ends training.
            callbacks: Keras callbacks.
            chunk_size: steps per call into TensorFlow, at least 1. An interruption waits for the end of a
                chunk.
            jit_compile: compile loss and gradients with XLA.
            strategy: whose replicas share the batches; None: there is one.
            workers: its processes, which decide together; `validate` and callbacks that need all of them have
                to be the same everywhere.

        Raises:
            ValueError: if a number is below 1, or the trainer is made in the scope of a strategy.
        """
        if tf.distribute.has_strategy():
            raise ValueError("The trainer is made in the scope of a strategy; expected it outside.")
        for name, number in {"steps_per_epoch": steps_per_epoch, "chunk_size": chunk_size}.items():
            if number < 1:
                raise ValueError(f"{name} is {number}; at least 1 is expected.")
        self.model, self.loss = model, loss
        self._strategy, self._workers = strategy or tf.distribute.get_strategy(), workers
        self._batches, self._validate = batches, validate
        self._guard, self._saver = guard or FiniteGuard(), saver or Saver(None)
        self._parts = StepParts(model, loss, optimizer, list(transforms), self._guard, jit_compile)
        self._controllers = Controllers(stopping=stopping, schedule=schedule, projections=projections)
        self._callbacks = list(callbacks)
        self._steps_per_epoch = steps_per_epoch
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self._phases = Phases(
            warm_up or WarmUp(), steps_per_epoch, self.step, lambda: self._parts.variables, self._make_runner
        )
        self.wall_time = WallTime()
        self._element_spec = batches(0).element_spec
        self._safe_points = SafePoints(self._saver, self._controllers, self._phases, workers)
        self._steps = EpochSteps(
            self._phases,
            self._controllers,
            self._guard,
            self._safe_points,
            self.wall_time,
            workers,
            learning_rate=optimizer.learning_rate,
            chunk_size=chunk_size,
        )
        self.diagnostics: dict[str, npt.NDArray[np.float32]] = {}
        self._diagnose = BatchDiagnostics(loss, self._strategy)
        self._saver.track(self.state)

    @property
    def epoch(self) -> int:
        """Number of whole epochs that are done."""
        return int(self.step) // self._steps_per_epoch

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None before the first score or without early stopping."""
        return self._controllers.best_epoch

    @property
    def trace_count(self) -> int:
        """How often the loop over steps was traced: once for the warm-up and once for the rest."""
        return self._phases.trace_count

    @property
    def state(self) -> dict[str, Any]:
        """Everything that has to survive a restart, by name."""
        parts = {**self._parts.state, **self._controllers.state}
        parts.update({"step": self.step, "means": self._steps.means})
        return {name: part for name, part in parts.items() if isinstance(part, (tf.Module, tf.Variable))}

    def restore(self) -> bool:
        """Continues from the newest checkpoint; returns whether there is one.

        Raises:
            CheckpointError: if it belongs to another model, loss or optimizer.
        """
        return self._saver.restore()

    def trace(self) -> None:
        """Traces the steps that come next, unless they are; `fit` does so where that is not done."""
        self._phases.runner()

    def fit(self, max_epochs: int) -> dict[str, list[float]]:
        """Trains until `max_epochs` epochs are done since the beginning of the run, or earlier.

        Then the best weights are restored, if there is early stopping. Called again after an interruption, it
        goes on where it was.

        Args:
            max_epochs: largest number of epochs, those before a restart included.

        Returns:
            The logs of the epochs of this call: a list for each name.

        Raises:
            Interrupted: after SIGINT or SIGTERM, with the state saved at the last whole chunk.
            Diverged: if the loss, the embeddings or the gradients are not finite.
            ValueError: if a monitored score is not among the logs.
        """
        if self.epoch < max_epochs:
            # Now: a stop that is asked for meanwhile need not wait for the end of it.
            self.trace()
        self.model.stop_training = False
        callbacks = tf.keras.callbacks.CallbackList(
            self._callbacks,
            add_history=True,
            model=self.model,
            epochs=max_epochs,
            steps=self._steps_per_epoch,
            verbose=0,
        )
        with StopRequest() as request, optimizer_of(self.model, self._parts.optimizer):
            self._saver.begin(int(self.step))
            callbacks.on_train_begin()
            iterator = iter(self._batches(int(self.step)))
            while self.epoch < max_epochs and not any(self._workers.from_all(self.stopped)):
                self._fit_epoch(iterator, callbacks, request)
            self._controllers.end()
            callbacks.on_train_end()
        return self.model.history.history

    @property
    def stopped(self) -> bool:
        """Whether training ends with this epoch, whichever is the last one."""
        return bool(self.model.stop_training) or self._controllers.should_stop

    def _fit_epoch(
        self, iterator: Any, callbacks: tf.keras.callbacks.CallbackList, request: StopRequest
    ) -> None:
        epoch = self.epoch
        self._steps.begin()
        callbacks.on_epoch_begin(epoch)
        logs, chunk = self._steps(iterator, callbacks, request)
        self.diagnostics = self._diagnose(chunk.labels, chunk.embeddings)
        if "active_pairs" in self.diagnostics:
            logs["active_pairs"] = float(self.diagnostics["active_pairs"])
        logs.update({**self._guard.logs, **self._controllers.logs})
        callbacks.on_test_begin()
        faults.passage("validation")
        if self._validate is not None:
            with self.wall_time.measured(VALIDATION):
                scores = self._validate()
            logs.update({f"val_{name}": float(value) for name, value in scores.items()})
        # Computed from the same numbers, but perhaps not by the same processor.
        logs = self._workers.from_chief(logs)
        callbacks.on_test_end(logs)
        # The warm-up's last step may be the epoch's last; then its score is still one of the warm-up.
        if self._phases.over_warm_up:
            with self.wall_time.measured(RESETS):
                self._controllers.after_validation(epoch, logs)
        callbacks.on_epoch_end(epoch, logs)
        self._safe_points.after_epoch(request)

    def _make_runner(self, variables: Sequence[tf.Variable], learning_rate_scale: float) -> ChunkRunner:
        with self._strategy.scope():
            step = self._parts.step(variables, learning_rate_scale)
            before, after = self._before_step, self._controllers.after_each_step
            return ChunkRunner(step, self._element_spec, self.step, before, after)

    def _before_step(self, step: tf.Tensor) -> None:
        rate = self._parts.optimizer.learning_rate
        self._controllers.set_learning_rate(rate, self._phases.since_warm_up(step))
