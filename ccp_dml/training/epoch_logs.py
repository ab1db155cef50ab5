"""The record of an epoch: means over its steps, its speed, and diagnostics of its last batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.training.step import TrainedLoss

TRAINING, VALIDATION, RESETS = "training", "validation", "resets"


class EpochMeans(tf.Module):
    """Running sums of scalars and their number of steps, in variables, so that a restart keeps them.

    The names of the scalars are known with the first step, and not before a run is restored: until then the
    sums are a vector of unknown length.

    Attributes:
        count: int64 variable, steps so far.
    """

    def __init__(self) -> None:
        """Begins an epoch."""
        super().__init__(name="epoch_means")
        self._names: tuple[str, ...] = ()
        self.count = tf.Variable(0, trainable=False, dtype=tf.int64, name="count")
        self._sums = tf.Variable(
            tf.zeros([0], tf.float64), trainable=False, shape=tf.TensorShape([None]), name="sums"
        )

    def reset(self) -> None:
        """Begins an epoch."""
        self.count.assign(0)
        self._sums.assign(tf.zeros([0], tf.float64))

    def add(self, sums: dict[str, float], steps: int) -> None:
        """Adds the sums over some steps; of the same scalars as before in this epoch."""
        self._names = tuple(sorted(sums))
        added = tf.constant([sums[name] for name in self._names], tf.float64)
        self._sums.assign(self._sums + added if len(self._sums.numpy()) else added)
        self.count.assign_add(steps)

    def result(self) -> dict[str, float]:
        """The means so far; NaN before the first step."""
        count = int(self.count)
        values = self._sums.numpy()
        return {
            name: float(value) / count if count else float("nan") for name, value in zip(self._names, values)
        }


class WallTime:
    """Seconds that training, validation and resets took in this process, since it was made.

    Attributes:
        data_wait: the seconds of training in which a step waited for its batch.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds = dict.fromkeys((TRAINING, VALIDATION, RESETS), 0.0)
        self.data_wait = 0.0

    def seconds(self, activity: str) -> float:
        """Seconds so far of 'training', 'validation' or 'resets'."""
        return self._seconds[activity]

    @contextlib.contextmanager
    def measured(self, activity: str) -> Iterator[None]:
        """Adds the time inside the context to 'training', 'validation' or 'resets'."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[activity] += time.perf_counter() - started

    def shares(self) -> dict[str, float]:
        """Shares of the time so far, each in [0, 1].

        Returns:
            `training`, `validation`, `resets` and `other`, whose sum is 1, and `data_wait`, which is part of
            `training`.
        """
        total = max(time.perf_counter() - self._started, 1e-9)
        shares = {activity: seconds / total for activity, seconds in self._seconds.items()}
        return {**shares, "other": 1.0 - sum(shares.values()), "data_wait": self.data_wait / total}

    def __str__(self) -> str:
        shares = self.shares()
        wait = shares.pop("data_wait")
        texts = [f"{activity} {share:.1%}" for activity, share in shares.items()]
        texts[0] += f" ({wait:.1%} waiting for data)"
        return "time: " + ", ".join(texts)


class EpochSpeed:
    """The speed of an epoch, as far as this process trained it.

    Attributes:
        images: number of images trained on.
    """

    def __init__(self, wall_time: WallTime) -> None:
        """Begins an epoch: the training that `wall_time` measures from now on belongs to it."""
        self._wall_time = wall_time
        self._seconds_before, self._wait_before = wall_time.seconds(TRAINING), wall_time.data_wait
        self.images = 0

    @property
    def logs(self) -> dict[str, float]:
        """`images_per_second`, and `data_wait_share`: the share of that time spent waiting for batches."""
        seconds = self._wall_time.seconds(TRAINING) - self._seconds_before
        wait = self._wall_time.data_wait - self._wait_before
        return {"images_per_second": self.images / seconds, "data_wait_share": wait / seconds}


class BatchDiagnostics:
    """Computes `loss.diagnostics`; on all replicas where proxies are sharded."""

    def __init__(self, loss: TrainedLoss, strategy: tf.distribute.Strategy) -> None:
        self._loss, self._strategy = loss, strategy
        self._is_sharded = any(replicas.table_of(v) is not None for v in loss.trainable_variables)
        self._on_replicas = tf.function(lambda *batch: strategy.run(loss.diagnostics, args=batch))

    def __call__(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, npt.NDArray[np.float32]]:
        """The figures as arrays, for the labels and the raw embeddings [B, D] of a whole batch."""
        return {name: np.asarray(value) for name, value in self._figures(labels, embeddings).items()}

    def _figures(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, Any]:
        if not self._is_sharded:
            return self._loss.diagnostics(labels, embeddings)
        with self._strategy.scope():
            return dict(replicas.first_local(self._on_replicas(labels, embeddings)))
