"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.chunks import Chunk, ChunkRunner
from ccp_dml.training.controllers import Controller
from ccp_dml.training.epoch_logs import (
    RESETS,
    TRAINING,
    VALIDATION,
    BatchDiagnostics,
    EpochMeans,
    EpochSpeed,
    WallTime,
)
from ccp_dml.training.interruption import Interrupted, StopRequest
from ccp_dml.training.optimizers import optimizer_of
from ccp_dml.training.options import TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.warm_up import WarmUp

Batches = Callable[[int], Any]
Validate = Callable[[], dict[str, float]]


class Trainer:
    """Trains a model and a loss, in epochs of a fixed number of steps.

    At the end of an epoch, in this order: validation; controllers (early stopping, learning-rate schedule,
    projections) look at the score of this very epoch; callbacks; checkpoint. The checkpoint comes last so
    that a run that is killed in between repeats the epoch's row of logs rather than losing it.

    Callbacks are ordinary Keras callbacks; `on_train_batch_end` comes after every chunk of steps, with the
    number of its last step, and `on_test_end` before proxies may change. The epoch logs are the means over
    the epoch of `loss`, of its components, of `gradient_norm` (before clipping) and `embedding_norm`;
    `active_pairs` of the last batch; `learning_rate` of the last step; `images_per_second`, and
    `data_wait_share`, the share of the steps' time in which they waited for their batches; `step`; the logs
    of the controllers, as they were during the epoch; and the validation's scores, prefixed by `val_`.

    Attributes:
        model: the embedding model.
        loss: the loss.
        step: int64 variable, steps made since the beginning of the run.
        wall_time: seconds of training, validation and resets.
        diagnostics: `loss.diagnostics` of the last batch of the last epoch, as arrays.
    """

    def __init__(
        self,
        train_step: TrainStep,
        batches: Batches,
        options: TrainingOptions,
        *,
        warm_up: WarmUp | None = None,
        validate: Validate | None = None,
        controllers: Sequence[Controller] = (),
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Puts the components together; `restore` and `fit` come next.

        With a distribution strategy (`checkpoints.workers.strategy`), the train step is made in its scope;
        the trainer and all else, whose state is of the process and not of its replicas, outside.

        Args:
            train_step: model, loss, optimizer and gradient transforms.
            batches: `batches(first_step)` gives the endless stream of (images, labels) from that step on, a
                dataset; with several replicas a distributed one, see `distributed_batches`.
            options: `steps_per_epoch` and `chunk_size` are used here.
            warm_up: the first epochs, with frozen variables.
            validate: scores the model after every epoch.
            controllers: asked in this order; early stopping, which keeps the best weights with the proxies
                that belong to them, before the projections, which may change these.
            callbacks: Keras callbacks.
            checkpoints: where and when to save, and the workers who train together; `validate` and callbacks
                that need all of them have to be the same everywhere.

        Raises:
            ValueError: if the trainer is made in the scope of a strategy.
        """
        if tf.distribute.has_strategy():
            raise ValueError("The trainer is made in the scope of a strategy; expected it outside.")
        self.model, self.loss = train_step.model, train_step.loss
        self._train_step, self._batches, self._options = train_step, batches, options
        self._validate = validate
        self._controllers, self._callbacks = tuple(controllers), list(callbacks)
        self._checkpoints = checkpoints or Checkpoints(None)
        self._workers = self._checkpoints.workers
        self._strategy = self._workers.strategy or tf.distribute.get_strategy()
        self._warm_up = warm_up or WarmUp()
        self._warm_up_steps = self._warm_up.steps(options.steps_per_epoch)
        every_step = any(controller.watches_every_step for controller in self._controllers)
        self._chunk_size = 1 if every_step else options.chunk_size
        self._runners: dict[bool, ChunkRunner] = {}
        self._element_spec = batches(0).element_spec
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self._means, self.wall_time = EpochMeans(), WallTime()
        self.diagnostics: dict[str, npt.NDArray[np.float32]] = {}
        self._diagnose = BatchDiagnostics(self.loss, self._strategy)
        self._checkpoints.track(**self.state)

    @property
    def state(self) -> dict[str, Any]:
        """Everything that has to survive a restart, by name."""
        controllers = {controller.name: controller for controller in self._controllers}
        return {**self._train_step.state, **controllers, "step": self.step, "means": self._means}

    @property
    def epoch(self) -> int:
        """Number of whole epochs that are done."""
        return int(self.step) // self._options.steps_per_epoch

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None before the first score or without early stopping."""
        found = (controller.best_epoch for controller in self._controllers)
        return next((epoch for epoch in found if epoch is not None), None)

    @property
    def stopped(self) -> bool:
        """Whether training ends with this epoch, even if it is not the last one."""
        return bool(self.model.stop_training) or any(c.should_stop for c in self._controllers)

    @property
    def trace_count(self) -> int:
        """Number of traces of the loop over steps: one for the warm-up and one for the rest."""
        return sum(runner.trace_count for runner in self._runners.values())

    def restore(self) -> bool:
        """Continues from the newest checkpoint; returns whether there is one.

        Raises:
            CheckpointError: if it belongs to another model, loss or optimizer.
        """
        return self._checkpoints.restore() is not None

    def fit(self, max_epochs: int) -> dict[str, list[float]]:
        """Trains until `max_epochs` epochs are done since the beginning of the run, or earlier.

        Then the best weights are restored, if there is early stopping. Called again after an interruption, it
        continues where it was.

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
            # Now: a request to stop need not wait for the end of the tracing.
            self.trace()
        self.model.stop_training = False
        callbacks = tf.keras.callbacks.CallbackList(
            self._callbacks,
            add_history=True,
            model=self.model,
            epochs=max_epochs,
            steps=self._options.steps_per_epoch,
            verbose=0,
        )
        with StopRequest() as request, optimizer_of(self.model, self._train_step.optimizer):
            self._checkpoints.begin(int(self.step))
            callbacks.on_train_begin()
            iterator = iter(self._batches(int(self.step)))
            while self.epoch < max_epochs and not any(self._workers.from_all(self.stopped)):
                self._fit_epoch(iterator, callbacks, request)
            for controller in self._controllers:
                controller.end()
            callbacks.on_train_end()
        return self.model.history.history

    def _fit_epoch(
        self, iterator: Any, callbacks: tf.keras.callbacks.CallbackList, request: StopRequest
    ) -> None:
        epoch = self.epoch
        self._begin_phase()
        callbacks.on_epoch_begin(epoch)
        logs, last = self._make_steps(iterator, callbacks, request)

        self.diagnostics = self._diagnose(last.labels, last.embeddings)
        if "active_pairs" in self.diagnostics:
            logs["active_pairs"] = float(self.diagnostics["active_pairs"])
        logs.update(self._train_step.guard.logs)
        for controller in self._controllers:
            logs.update(controller.logs)

        callbacks.on_test_begin()
        logs.update(self._validation_scores())
        # Computed from the same numbers, but perhaps not by the same processor.
        logs = self._workers.from_chief(logs)
        callbacks.on_test_end(logs)

        # If the epoch's last step was the warm-up's last, its score is still one of the warm-up.
        if int(self.step) > self._warm_up_steps:
            with self.wall_time.measured(RESETS):
                for controller in self._controllers:
                    controller.after_validation(epoch, logs)
        callbacks.on_epoch_end(epoch, logs)
        self._save(stop=self._agreed(request)[0])

    def _make_steps(
        self, iterator: Any, callbacks: tf.keras.callbacks.CallbackList, request: StopRequest
    ) -> tuple[dict[str, Any], Chunk]:
        """Makes the steps that are left of the epoch; returns its logs and the last chunk."""
        total, speed = self._options.steps_per_epoch, EpochSpeed(self.wall_time)
        done = int(self.step) % total
        if not done:
            self._means.reset()
        while done < total:
            if speed.images:
                self._begin_phase()
            warming_up, multiplier = self._warming_up, self._learning_rate_multiplier
            count = min(self._chunk_size, total - done)
            if warming_up:
                count = min(count, self._warm_up_steps - int(self.step))
            callbacks.on_train_batch_begin(done)
            runner = self.trace()
            with self.wall_time.measured(TRAINING):
                chunk = runner(iterator, count)
            self.wall_time.data_wait += chunk.data_wait
            speed.images += count * int(chunk.embeddings.shape[0])
            done += count
            self._train_step.guard.check(chunk.bad_step, chunk.bad, self._checkpoints.latest)
            self._means.add(chunk.sums, chunk.finite_steps)
            logs = {**self._means.result(), **speed.logs}
            callbacks.on_train_batch_end(done - 1, logs)
            if not warming_up and chunk.finite_steps:
                self._after_steps(chunk)
            # Not at the end of the epoch: what follows belongs to it, and is not in a checkpoint.
            if done < total:
                stop, due = self._agreed(request)
                if stop or due:
                    self._save(stop=stop)
        rate = float(self._train_step.optimizer.learning_rate.numpy()) * multiplier
        return {**logs, "step": int(self.step), "learning_rate": rate}, chunk

    def trace(self) -> ChunkRunner:
        """Traces the steps of the present phase, unless they are; `fit` does so where that is not done."""
        warming_up = self._warming_up
        if warming_up not in self._runners:
            variables = self._train_step.trainable_variables
            trained = self._warm_up.trained(variables) if warming_up else variables
            watching = [controller for controller in self._controllers if controller.watches_batches]

            def before_step(step: tf.Tensor) -> None:
                rate = self._train_step.optimizer.learning_rate
                for controller in self._controllers:
                    controller.before_step(rate, tf.maximum(step - self._warm_up_steps, 0))

            def after_step(labels: tf.Tensor, embeddings: tf.Tensor) -> None:
                for controller in watching:
                    controller.after_step(labels, embeddings)

            with self._strategy.scope():
                self._runners[warming_up] = ChunkRunner(
                    self._train_step.training(trained, self._learning_rate_multiplier),
                    self._element_spec,
                    self.step,
                    before_step,
                    after_step if watching else None,
                )
        return self._runners[warming_up]

    @property
    def _warming_up(self) -> bool:
        """Whether the next step is one of the warm-up."""
        return int(self.step) < self._warm_up_steps

    @property
    def _learning_rate_multiplier(self) -> float:
        return self._warm_up.learning_rate_multiplier if self._warming_up else 1.0

    def _begin_phase(self) -> None:
        """Lets the controllers begin if the next step is the first of the warm-up or after it."""
        if int(self.step) in (0, self._warm_up_steps):
            with self.wall_time.measured(RESETS):
                for controller in self._controllers:
                    controller.begin()

    def _after_steps(self, chunk: Chunk) -> None:
        with self.wall_time.measured(RESETS):
            for controller in self._controllers:
                means = chunk.means
                if controller.watches_every_step:
                    means = self._workers.from_chief(means)
                controller.after_steps(means)

    def _validation_scores(self) -> dict[str, float]:
        if self._validate is None:
            return {}
        with self.wall_time.measured(VALIDATION):
            return {f"val_{name}": float(value) for name, value in self._validate().items()}

    def _agreed(self, request: StopRequest) -> tuple[bool, bool]:
        """Whether to stop, as any worker was asked to; whether the chief says that it is time to save."""
        found = self._workers.from_all([request.requested, self._checkpoints.due(int(self.step))])
        return any(requested for requested, _ in found), found[0][1]

    def _save(self, *, stop: bool) -> None:
        """Saves; raises `Interrupted` if training is to stop."""
        best = self.best_epoch
        best_step = None if best is None else (best + 1) * self._options.steps_per_epoch
        path = self._checkpoints.save(int(self.step), best_step)
        if stop:
            raise Interrupted(int(self.step), path)
