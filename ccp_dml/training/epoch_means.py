"""Means over the steps of an epoch that a restart in the middle of it does not disturb."""

from __future__ import annotations

import tensorflow as tf


class EpochMeans(tf.Module):
    """Running sums of scalars and their number of steps, kept in variables.

    Which scalars these are is known with the first step, and not before a run is restored: until then the
    sums are a vector of whatever length.

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
