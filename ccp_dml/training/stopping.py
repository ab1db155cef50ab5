"""Early stopping that survives a restart and gives back the best weights of the whole run."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tensorflow as tf

from ccp_dml.training.snapshot import WeightSnapshot


class EarlyStopping(tf.Module):
    """Watches a score, keeps the weights of its best value, and says when to stop.

    Attributes:
        monitor: name of the score in the epoch logs.
        best_score: float64 variable, NaN before the first score.
        best_epoch: int64 variable, number of the validation (from 0) with the best score, -1 before.
        stale: int64 variable, validations since then.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        *,
        patience: int | None,
        monitor: str = "map_at_r",
        stop_at_min: bool = False,
        min_delta: float = 0.0,
    ) -> None:
        """Creates the controller.

        Args:
            variables: what to keep at its best: all weights of the model, batch statistics included, and of
                the loss; none, if training is to end with the weights of its last step.
            patience: validations without improvement before stopping, at least 1; None never stops, but still
                keeps the best weights.
            monitor: name of the score in the epoch logs.
            stop_at_min: lower scores are better.
            min_delta: a score counts as better if it is so by more than this.

        Raises:
            ValueError: if the patience is below 1 or `min_delta` negative.
        """
        super().__init__(name="early_stopping")
        if patience is not None and patience < 1:
            raise ValueError(f"The patience of early stopping is {patience}; at least 1 is expected.")
        if min_delta < 0:
            raise ValueError(f"min_delta of early stopping is {min_delta}; it cannot be negative.")
        self.monitor = monitor
        self._patience, self._min_delta = patience, min_delta
        self._sign = 1.0 if stop_at_min else -1.0
        self.best_score = tf.Variable(float("nan"), trainable=False, dtype=tf.float64, name="best_score")
        self.best_epoch = tf.Variable(-1, trainable=False, dtype=tf.int64, name="best_epoch")
        self.stale = tf.Variable(0, trainable=False, dtype=tf.int64, name="stale")
        self._best_weights = WeightSnapshot(variables, name="best_weights")

    @property
    def should_stop(self) -> bool:
        """Whether the patience is used up."""
        return self._patience is not None and int(self.stale) >= self._patience

    def update(self, score: float, epoch: int) -> bool:
        """Takes note of the score of an epoch.

        Args:
            score: the monitored score; NaN is never better.
            epoch: number of the epoch, from 0.

        Returns:
            Whether training should stop.
        """
        if self._is_better(score):
            self.best_score.assign(score)
            self.best_epoch.assign(epoch)
            self.stale.assign(0)
            self._best_weights.take()
        else:
            self.stale.assign_add(1)
        return self.should_stop

    def _is_better(self, score: float) -> bool:
        if int(self.best_epoch) < 0:
            return not math.isnan(score)
        return self._sign * score < self._sign * float(self.best_score) - self._min_delta

    def restore_best(self) -> bool:
        """Gives the variables their best values; returns False if no score was seen yet."""
        if int(self.best_epoch) < 0:
            return False
        self._best_weights.put_back()
        return True
