"""The logs of an epoch, means over its steps and its speed, and the time spent on each activity."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import tensorflow as tf

from ccp_dml.training.chunks import Chunk

TRAINING, VALIDATION, RESETS = "training", "validation", "resets"


class EpochMeans(tf.Module):
    """Sums of scalars over the steps of an epoch, in variables, so that a restart keeps them.

    The names of the scalars are known only after the first step, but a restored run has sums before it: until
    then the sums are a vector of unknown length.

    Attributes:
        count: int64 variable, number of steps so far.
    """

    def __init__(self) -> None:
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

    def add(self, chunk: Chunk) -> None:
        """Adds the finite steps of a chunk."""
        self._names = tuple(sorted(chunk.sums))
        added = tf.constant([chunk.sums[name] for name in self._names], tf.float64)
        self._sums.assign(self._sums + added if len(self._sums.numpy()) else added)
        self.count.assign_add(chunk.finite_steps)

    def result(self) -> dict[str, float]:
        """Returns the means so far; NaN before the first step."""
        count = int(self.count)
        values = self._sums.numpy()
        return {
            name: float(value) / count if count else float("nan") for name, value in zip(self._names, values)
        }


class WallTime:
    """Seconds that this process has spent on training, validation and resets of proxies.

    Attributes:
        data_wait: seconds of training in which a step waited for its batch.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._seconds = dict.fromkeys((TRAINING, VALIDATION, RESETS), 0.0)
        self.data_wait = 0.0

    def seconds(self, activity: str) -> float:
        """Returns the seconds so far of `'training'`, `'validation'` or `'resets'`."""
        return self._seconds[activity]

    @contextlib.contextmanager
    def measured(self, activity: str) -> Iterator[None]:
        """Context whose time is added to `'training'`, `'validation'` or `'resets'`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[activity] += time.perf_counter() - started

    def shares(self) -> dict[str, float]:
        """Returns shares of the time so far, each in [0, 1].

        Returns:
            `training`, `validation`, `resets` and `other`, whose sum is 1, and `data_wait`, which is included
            in `training`.
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
    """Speed of the part of an epoch that this process trains.

    Attributes:
        images: number of images so far.
    """

    def __init__(self, wall_time: WallTime) -> None:
        """Begins to measure: the training of `wall_time` from now on counts."""
        self._wall_time = wall_time
        self._seconds_before, self._wait_before = wall_time.seconds(TRAINING), wall_time.data_wait
        self.images = 0

    @property
    def logs(self) -> dict[str, float]:
        """`images_per_second`, and `data_wait_share`: the share of that time spent waiting for batches."""
        seconds = self._wall_time.seconds(TRAINING) - self._seconds_before
        wait = self._wall_time.data_wait - self._wait_before
        return {"images_per_second": self.images / seconds, "data_wait_share": wait / seconds}
