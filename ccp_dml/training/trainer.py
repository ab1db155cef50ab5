"""The training loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.embedding_model import batch_norm_variables, synchronize_batch_norm
from ccp_dml.training.checkpoints import Checkpoints, StopRequest, TrainingInterrupted
from ccp_dml.training.chunks import Chunk, ChunkRunner
from ccp_dml.training.controllers import Controller, EarlyStopping, WarmUp, make_schedule
from ccp_dml.training.epoch_logs import RESETS, TRAINING, VALIDATION, EpochMeans, EpochSpeed, WallTime
from ccp_dml.training.finite import FiniteGuard
from ccp_dml.training.gradients import make_transforms
from ccp_dml.training.optimizers import make_optimizer_groups, optimizer_of
from ccp_dml.training.options import GradientOptions, OptimizerOptions, TrainingOptions
from ccp_dml.training.step import TrainStep

Batches = Callable[[int], Any]
Validate = Callable[[], dict[str, float]]


class Trainer:
    """Trains a model and a loss, in epochs of a fixed number of steps.

    An epoch ends with validation; then the controllers (early stopping, learning-rate schedule, projections)
    look at the score of this very epoch; then come the callbacks and the checkpoint. The checkpoint is last,
    so that a run that is killed before it repeats the row of logs of the epoch instead of losing it.

    Callbacks are ordinary Keras callbacks. `on_train_batch_end` is called after every chunk of steps, with
    the number of its last step, and `on_test_end` before proxies may change. The epoch logs are

    - means over the epoch of `loss`, its components, `gradient_norm` (before clipping) and `embedding_norm`;
    - `images_per_second`, and `data_wait_share`, the share of the time of the steps spent waiting for
      batches;
    - `step`, `learning_rate` of the last step, and `active_pairs` of the last batch;
    - the logs of the controllers, as they were during the epoch;
    - the scores of the validation, prefixed by `val_`.

    Attributes:
        model: the embedding model.
        loss: the loss.
        step: int64 variable, number of steps since the beginning of the run.
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
        """Connects the components; `restore` and `fit` come next. `create` makes them from options.

        With a distribution strategy (`checkpoints.workers.strategy`), the train step is created in its scope.
        The trainer and the other components, whose state belongs to the process, are created outside of it.

        Args:
            train_step: model, loss, optimizer and gradient transforms.
            batches: `batches(first_step)` returns the endless stream of (images, labels) from that step on: a
                dataset, or with several replicas a distributed one, see `distributed_batches`.
            options: `steps_per_epoch` and `chunk_size` are used.
            warm_up: the first epochs, with frozen variables.
            validate: returns the scores of the model; called after every epoch.
            controllers: called in this order. Early stopping comes before the projections: it keeps the best
                weights with their proxies, which the projections may then replace.
            callbacks: Keras callbacks.
            checkpoints: the checkpoints, and the workers that train together; all workers have to pass the
                same `validate`, and the same callbacks in which all take part.

        Raises:
            ValueError: if the trainer is created in the scope of a strategy.
        """
        if tf.distribute.has_strategy():
            raise ValueError("The trainer is created in the scope of a strategy; expected it outside.")
        self.model, self.loss = train_step.model, train_step.loss
        self._train_step, self._batches, self._options = train_step, batches, options
        self._warm_up, self._validate = warm_up or WarmUp(), validate
        self._controllers, self._callbacks = tuple(controllers), list(callbacks)
        self._checkpoints = checkpoints or Checkpoints(None)
        self._workers = self._checkpoints.workers
        self._warm_up_steps = self._warm_up.steps(options.steps_per_epoch)
        self._watches_every_step = any(controller.watches_every_step for controller in self._controllers)
        self._runners: dict[bool, ChunkRunner] = {}
        self._element_spec = batches(0).element_spec
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self._means, self.wall_time = EpochMeans(), WallTime()
        self.diagnostics: dict[str, npt.NDArray[np.float32]] = {}
        self._checkpoints.track(**self.state)

    @classmethod
    def create(
        cls,
        model: tf.keras.Model,
        loss: MetricLoss,
        batches: Batches,
        options: TrainingOptions | None = None,
        *,
        optimizer: OptimizerOptions | None = None,
        gradients: GradientOptions | None = None,
        backbone: Sequence[tf.Variable] = (),
        validate: Validate | None = None,
        controllers: Sequence[Controller] = (),
        callbacks: Sequence[tf.keras.callbacks.Callback] = (),
        checkpoints: Checkpoints | None = None,
    ) -> Trainer:
        """Makes the trainer of a model and a loss from options, as the training command does.

        With `validate`, early stopping and the restoring of the best weights are those of the options.
        Projections among the controllers bring their proximal term with them.

        Args:
            model: a built model from images [B, ...] to embeddings [B, D].
            loss: the loss; its proxies and other variables are trained.
            batches: `batches(first_step)` returns the endless stream of (images, labels) from that step on,
                such as `balanced_batches(..., first_step=first_step)`.
            options: length of an epoch, early stopping, monitored score; None for the defaults.
            optimizer: optimizer, learning rate, schedule and warm-up; None for the defaults.
            gradients: weight decay, clipping and averages; None for the defaults.
            backbone: variables that the warm-up freezes.
            validate: returns scores by name, such as `lambda: metrics.scores(model)`.
            controllers: further controllers, such as `AlternatingProjections.of_model`.
            callbacks: Keras callbacks.
            checkpoints: where to save. `Checkpoints(folder, workers=Workers(strategy))` trains under a
                `tf.distribute` strategy, in whose scope model and loss were made. Batch normalisation of the
                model then uses the statistics of the global batch.

        Raises:
            ValueError: if the model is not built, or the trainer is created in the scope of a strategy.

        Example:
            >>> source = ccp_dml.data.from_arrays(np.eye(6, dtype=np.float32), [0, 0, 1, 1, 2, 2])
            >>> model = tf.keras.Sequential([tf.keras.layers.Dense(2, input_shape=[6])])
            >>> trainer = Trainer.create(
            ...     model,
            ...     ccp_dml.losses.MultiSimilarity(),
            ...     lambda step: ccp_dml.data.balanced_batches(source, 2, 2, first_step=step),
            ...     TrainingOptions(steps_per_epoch=3),
            ... )
            >>> trainer.fit(max_epochs=2)["step"]
            [3, 6]
        """
        if not model.built:
            raise ValueError(
                f"the model {model.name} has no weights yet; expected one that knows the shape of its "
                "inputs, or that was called once"
            )
        options, optimizer = options or TrainingOptions(), optimizer or OptimizerOptions()
        checkpoints = checkpoints or Checkpoints(None)
        strategy = checkpoints.workers.strategy
        if strategy is not None and strategy.num_replicas_in_sync > 1:
            synchronize_batch_norm(model)
        proximal = next((found.proximal_term for found in controllers if found.proximal_term), None)
        with checkpoints.workers.scope():
            train_step = TrainStep(
                model,
                loss,
                make_optimizer_groups(optimizer, backbone, model, loss),
                transforms=make_transforms(
                    gradients or GradientOptions(),
                    model.trainable_variables,
                    proximal=proximal,
                    exclude_from_decay=batch_norm_variables(model),
                ),
                guard=FiniteGuard(skips=options.nan_policy == "skip"),
                jit_compile=options.jit_compile,
            )
        # Early stopping keeps the best weights before the projections may change proxies.
        stopping = None
        if validate is not None:
            kept = [*model.variables, *loss.variables] if options.restore_best else []
            stopping = EarlyStopping(kept, patience=options.patience, monitor=options.monitor)
        schedule = make_schedule(optimizer, options.monitor, options.steps_per_epoch)
        warm_up_rate = optimizer.warm_up_learning_rate or optimizer.learning_rate
        return cls(
            train_step,
            batches,
            options,
            warm_up=WarmUp(optimizer.warm_up_epochs, backbone, warm_up_rate / optimizer.learning_rate),
            validate=validate,
            controllers=[*(found for found in (stopping, schedule) if found is not None), *controllers],
            callbacks=callbacks,
            checkpoints=checkpoints,
        )

    @property
    def state(self) -> dict[str, Any]:
        """Modules and variables that have to survive a restart, by name."""
        controllers = {controller.name: controller for controller in self._controllers}
        return {**self._train_step.state, **controllers, "step": self.step, "means": self._means}

    @property
    def epoch(self) -> int:
        """Number of complete epochs."""
        return int(self.step) // self._options.steps_per_epoch

    @property
    def best_epoch(self) -> int | None:
        """Epoch (from 0) with the best score; None before the first score or without early stopping."""
        found = (controller.best_epoch for controller in self._controllers)
        return next((epoch for epoch in found if epoch is not None), None)

    @property
    def stopped(self) -> bool:
        """True if training ends with this epoch although there are epochs left."""
        return bool(self.model.stop_training) or any(c.should_stop for c in self._controllers)

    @property
    def trace_count(self) -> int:
        """Number of traces of the loop over steps: one for the warm-up and one for the rest."""
        return sum(runner.trace_count for runner in self._runners.values())

    def restore(self) -> bool:
        """Continues from the newest checkpoint; returns False if there is none.

        Raises:
            CheckpointError: if the checkpoint belongs to another model, loss or optimizer.
        """
        return self._checkpoints.restore() is not None

    def fit(self, max_epochs: int) -> dict[str, list[float]]:
        """Trains until `max_epochs` epochs are complete, or a controller or callback stops training.

        Early stopping then restores the best weights. After an interruption, a second call continues.

        Args:
            max_epochs: largest number of epochs since the beginning of the run.

        Returns:
            The logs of the epochs of this call: a list for each name.

        Raises:
            TrainingInterrupted: after SIGINT or SIGTERM, with the state saved after the last chunk; also if
                all epochs are complete.
            Diverged: if the loss, the embeddings or the gradients are not finite.
            ValueError: if a monitored score is not in the logs.
        """
        if self.epoch < max_epochs:
            # Before signals are only recorded: they should end a long tracing at once.
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
            # During the last checkpoint, or since: the epochs are done, but not the command.
            if self._agreed(request)[0]:
                raise TrainingInterrupted(int(self.step), self._checkpoints.latest)
        return self.model.history.history

    def _fit_epoch(
        self, iterator: Any, callbacks: tf.keras.callbacks.CallbackList, request: StopRequest
    ) -> None:
        epoch = self.epoch
        callbacks.on_epoch_begin(epoch)
        logs = self._make_steps(iterator, callbacks, request)

        callbacks.on_test_begin()
        if self._validate is not None:
            with self.wall_time.measured(VALIDATION):
                scores = self._validate()
            logs.update({f"val_{name}": float(value) for name, value in scores.items()})
        # The workers compute the same numbers, but not all on the same kind of processor.
        logs = self._workers.from_chief(logs)
        callbacks.on_test_end(logs)

        if int(self.step) > self._warm_up_steps:
            with self.wall_time.measured(RESETS):
                for controller in self._controllers:
                    controller.after_validation(epoch, logs)
        callbacks.on_epoch_end(epoch, logs)
        stop, _ = self._agreed(request)
        self._save(stop=stop)

    def _make_steps(
        self, iterator: Any, callbacks: tf.keras.callbacks.CallbackList, request: StopRequest
    ) -> dict[str, Any]:
        """Makes the remaining steps of the epoch, chunk by chunk; returns its logs."""
        total, speed = self._options.steps_per_epoch, EpochSpeed(self.wall_time)
        done = int(self.step) % total
        if not done:
            self._means.reset()
        while done < total:
            self._begin_phase()
            runner, count = self.trace(), self._chunk_size(total - done)
            callbacks.on_train_batch_begin(done)
            with self.wall_time.measured(TRAINING):
                chunk = runner(iterator, count)
            self.wall_time.data_wait += chunk.data_wait
            speed.images += chunk.images
            self._means.add(chunk)
            done += count
            if chunk.bad_step:
                self._train_step.guard.check(chunk.bad_step, chunk.bad, self._checkpoints.latest)
            callbacks.on_train_batch_end(done - 1, {**self._means.result(), **speed.logs})
            if self._watches_every_step and chunk.finite_steps and int(self.step) > self._warm_up_steps:
                self._after_scores(chunk)
            # The checkpoint of the last steps comes at the end of the epoch, after what belongs to it.
            if done < total:
                stop, due = self._agreed(request)
                if stop or due:
                    self._save(stop=stop)
        return {**self._means.result(), **speed.logs, **self._logs_of_last_step(chunk)}

    def trace(self) -> ChunkRunner:
        """Traces the steps of the present phase, the warm-up or the rest, unless they are traced already."""
        is_warm_up = self._is_warm_up(int(self.step))
        if is_warm_up not in self._runners:
            variables, scale = self._train_step.trainable_variables, 1.0
            if is_warm_up:
                variables, scale = self._warm_up.trained(variables), self._warm_up.learning_rate_multiplier

            def before_step(step: tf.Tensor) -> None:
                rate = self._train_step.optimizer.learning_rate
                for controller in self._controllers:
                    controller.before_step(rate, tf.maximum(step - self._warm_up_steps, 0))

            def after_step(labels: tf.Tensor, embeddings: tf.Tensor) -> None:
                for controller in self._controllers:
                    controller.after_step(labels, embeddings)

            strategy = self._workers.strategy or tf.distribute.get_strategy()
            with strategy.scope():
                step = self._train_step.training(variables, scale)
                self._runners[is_warm_up] = ChunkRunner(
                    step, self._element_spec, self.step, before_step, after_step
                )
            self._checkpoints.track(**self.state)
        return self._runners[is_warm_up]

    def _is_warm_up(self, step: int) -> bool:
        """Returns True if a step, from 0, belongs to the warm-up."""
        return step < self._warm_up_steps

    def _begin_phase(self) -> None:
        """Lets the controllers begin, before the first step of the run and the first after the warm-up."""
        if int(self.step) in (0, self._warm_up_steps):
            with self.wall_time.measured(RESETS):
                for controller in self._controllers:
                    controller.begin()

    def _chunk_size(self, remaining: int) -> int:
        """Number of steps of the next chunk, which ends with the epoch and with the warm-up."""
        size = min(1 if self._watches_every_step else self._options.chunk_size, remaining)
        step = int(self.step)
        return min(size, self._warm_up_steps - step) if self._is_warm_up(step) else size

    def _after_scores(self, chunk: Chunk) -> None:
        with self.wall_time.measured(RESETS):
            scores = self._workers.from_chief(chunk.sums)
            for controller in self._controllers:
                controller.after_scores(scores)

    def _logs_of_last_step(self, chunk: Chunk) -> dict[str, Any]:
        """Logs that describe the end of an epoch; computes the diagnostics of its last batch."""
        step, rate = int(self.step), float(self._train_step.optimizer.learning_rate.numpy())
        if self._is_warm_up(step - 1):
            rate *= self._warm_up.learning_rate_multiplier
        logs: dict[str, Any] = {"step": step, "learning_rate": rate}
        self.diagnostics = self._train_step.diagnostics(chunk.labels, chunk.embeddings)
        if "active_pairs" in self.diagnostics:
            logs["active_pairs"] = float(self.diagnostics["active_pairs"])
        logs.update(self._train_step.guard.logs)
        for controller in self._controllers:
            logs.update(controller.logs)
        return logs

    def _agreed(self, request: StopRequest) -> tuple[bool, bool]:
        """Returns whether any worker was asked to stop, and whether the chief has a checkpoint due."""
        found = self._workers.from_all([request.requested, self._checkpoints.due(int(self.step))])
        return any(requested for requested, _ in found), found[0][1]

    def _save(self, *, stop: bool) -> None:
        """Saves a checkpoint; then raises `TrainingInterrupted` if training is to stop."""
        best = self.best_epoch
        best_step = None if best is None else (best + 1) * self._options.steps_per_epoch
        path = self._checkpoints.save(int(self.step), best_step)
        if stop:
            raise TrainingInterrupted(int(self.step), path)
