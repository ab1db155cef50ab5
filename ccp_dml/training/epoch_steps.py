"""The steps of an epoch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml import faults
from ccp_dml.distributed.workers import Workers
from ccp_dml.training.checkpoints import StopRequest
from ccp_dml.training.chunks import Chunk
from ccp_dml.training.controllers import Controllers
from ccp_dml.training.epoch_means import EpochMeans
from ccp_dml.training.finite import FiniteGuard
from ccp_dml.training.phases import Phases
from ccp_dml.training.safe_points import SafePoints
from ccp_dml.training.wall_time import RESETS, TRAINING, EpochSpeed, WallTime


class EpochSteps:
    """Makes the steps of an epoch chunk by chunk, from wherever in it the run is.

    Attributes:
        means: of the present epoch; part of the state of the run.
    """

    def __init__(
        self,
        phases: Phases,
        controllers: Controllers,
        guard: FiniteGuard,
        safe_points: SafePoints,
        wall_time: WallTime,
        workers: Workers,
        *,
        learning_rate: tf.Variable,
        chunk_size: int,
    ) -> None:
        """Puts the parts together.

        Args:
            phases: have the runner of the next steps.
            controllers: look at the score of every step, if they are to; a chunk is then one step.
            guard: told of every chunk.
            safe_points: after every chunk but the last one.
            wall_time: told what takes how long.
            workers: whose chief's scores count.
            learning_rate: of the run, which a phase may scale.
            chunk_size: most steps of a chunk, at least 1.
        """
        self.means = EpochMeans()
        self._phases, self._controllers, self._guard = phases, controllers, guard
        self._safe_points, self._wall_time, self._workers = safe_points, wall_time, workers
        self._learning_rate = learning_rate
        self._chunk_size = 1 if controllers.every_step else chunk_size

    def begin(self) -> None:
        """Begins training if the next step is the first of the warm-up or of what comes after it."""
        if self._phases.begins:
            with self._wall_time.measured(RESETS):
                self._controllers.begin()

    def __call__(
        self, iterator: Any, callbacks: tf.keras.callbacks.CallbackList, request: StopRequest
    ) -> tuple[dict[str, Any], Chunk]:
        """Makes the steps that are left.

        Args:
            iterator: over batches, from the next step on.
            callbacks: told of every chunk as of a batch.
            request: to stop.

        Returns:
            The logs: the means of the steps' scalars over the epoch, its speed, the last step and its
            learning rate. And the last chunk.

        Raises:
            Interrupted: if a stop is asked for before the last chunk is done.
            Diverged: if the guard says so.
        """
        total, speed = self._phases.steps_per_epoch, EpochSpeed(self._wall_time)
        done = self._phases.step % total
        if not done:
            self.means.reset()
        while done < total:
            if speed.images:
                self.begin()
            runner, warming_up = self._phases.runner(), self._phases.warming_up
            multiplier = self._phases.learning_rate_multiplier
            count = self._phases.steps_left(min(self._chunk_size, total - done))
            callbacks.on_train_batch_begin(done)
            with self._wall_time.measured(TRAINING):
                chunk = runner(iterator, count)
            self._wall_time.data_wait += chunk.data_wait
            faults.passage("step")
            speed.images += count * int(chunk.embeddings.shape[0])
            done += count
            self._guard.check(chunk, self._safe_points.saver)
            self.means.add(chunk.sums, chunk.finite_steps)
            logs = {**self.means.result(), **speed.logs}
            callbacks.on_train_batch_end(done - 1, logs)
            if not warming_up and chunk.finite_steps:
                self._after_steps(chunk)
            # Not at the end of the epoch: what follows belongs to it, and is not in a checkpoint.
            if done < total:
                self._safe_points.after_chunk(request)
        rate = float(self._learning_rate.numpy()) * multiplier
        return {**logs, "step": self._phases.step, "learning_rate": rate}, chunk

    def _after_steps(self, chunk: Chunk) -> None:
        with self._wall_time.measured(RESETS):
            means = chunk.means
            if self._controllers.every_step:
                means = self._workers.from_chief(means)
            self._controllers.after_steps(means)
