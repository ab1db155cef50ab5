"""Multi-level distance regularisation of any loss."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ccp_dml.distributed.replicas import per_replica_state
from ccp_dml.geometry import pairwise_distances, to_float32
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.wrapper import WrappingLoss

_OUTERMOST_LEVEL = 3.0
# The scale of distances cannot be told from a mean or a deviation below this, as of one sample.
_SMALLEST_SCALE = 1e-6
# Batches with larger components are scaled down to this first, so that squared distances stay finite.
_LARGEST_COMPONENT = 2.0**20


@tf.keras.utils.register_keras_serializable("ccp_dml")
class DistanceRegularization(WrappingLoss):
    """MDR: pulls distances to a few learned levels, and scales embeddings by their mean distance.

    With D the distances of all B x B pairs of raw embeddings e (the diagonal included), m their mean and s
    their standard deviation, the loss is the base loss of `e / m`, plus `regularization_weight` times the
    mean over the pairs of `min_l |(D - m') / s' - level_l|`, plus `level_weight` times the sum of the squared
    levels. m' and s' are running means of m and s, without gradient. They start at the values of the first
    batch; each call of `components` then adds the new value with the weight `1 - statistics_momentum`. If m
    is below 1e-6, as for one sample, the base loss is that of e.

    The scaling takes the place of a normalisation: the base loss of the paper has `normalization='none'`.
    With `'unit'` the base loss does not see the scale, and only the regularisation has an effect. With
    `'lipschitz'` it depends on where `e / m` leaves the unit ball, while evaluation does not scale.

    Kim, Park, "Multi-level distance regularization for deep metric learning", AAAI 2021.

    Attributes:
        levels: float32 variable, trained; initially evenly spaced from -3 to 3.
        running_mean: float32 variable, m'.
        running_deviation: float32 variable, s'.
        batches: int64 variable, number of batches in the running statistics.

    Example:
        >>> loss = DistanceRegularization(ccp_dml.losses.Triplet(normalization="none"))
        >>> float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])) > 0
        True
        >>> loss.levels.numpy().tolist()
        [-3.0, 0.0, 3.0]
    """

    def __init__(
        self,
        base: MetricLoss,
        regularization_weight: float = 1.0,
        level_weight: float = 0.01,
        num_levels: int = 3,
        statistics_momentum: float = 0.9,
        name: str | None = None,
    ) -> None:
        """Wraps a loss.

        Args:
            base: the loss of the scaled embeddings, or a wrapper of it; a memory inside holds scaled
                embeddings. D is the distance of the innermost loss, or the Euclidean one instead of the
                cosine distance, whose mean is near 0.
            regularization_weight: weight of the distances to the levels.
            level_weight: weight of the squared levels.
            num_levels: number of levels, at least 1.
            statistics_momentum: momentum of the running statistics, in [0, 1).
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if `base` cannot be wrapped, or a number is out of range.
        """
        super().__init__(base, name=name)
        if num_levels < 1:
            raise ValueError(f"num_levels is {num_levels}; expected at least 1")
        if not 0 <= statistics_momentum < 1:
            raise ValueError(f"statistics_momentum is {statistics_momentum}; expected at least 0 and below 1")
        self.regularization_weight = regularization_weight
        self.level_weight = level_weight
        self.num_levels = num_levels
        self.statistics_momentum = statistics_momentum
        outermost = _OUTERMOST_LEVEL if num_levels > 1 else 0.0
        levels = np.linspace(-outermost, outermost, num_levels, dtype=np.float32)
        self.levels = tf.Variable(levels, name="levels")
        self.running_mean = per_replica_state(0.0, name="running_mean")
        self.running_deviation = per_replica_state(0.0, name="running_deviation")
        self.batches = per_replica_state(0, tf.int64, "batches")

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `mdr_loss` and the components of the base loss. Updates the running statistics."""
        finite = tf.reduce_all(tf.math.is_finite(embeddings))
        embeddings, distances = self._measure(embeddings)
        mean = _mean(distances)
        finite &= tf.size(distances) > 0
        self._update(tf.stop_gradient(mean), tf.math.reduce_std(tf.stop_gradient(distances)), finite)
        deviation = tf.maximum(self.running_deviation, _SMALLEST_SCALE)
        normalized = (distances - self.running_mean) / deviation
        to_levels = tf.abs(normalized[..., tf.newaxis] - self.levels)
        regularization = self.regularization_weight * _mean(tf.reduce_min(to_levels, axis=-1))
        of_levels = self.level_weight * tf.reduce_sum(tf.square(self.levels))
        return {
            **self.base.components(labels, _scale(embeddings, mean)),
            "mdr_loss": regularization + of_levels,
        }

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the figures of the base loss for the scaled embeddings. Changes no state."""
        raw, distances = self._measure(embeddings)
        figures = self.base.diagnostics(labels, _scale(raw, _mean(distances)))
        return {
            **figures,
            "embedding_norm": tf.reduce_mean(tf.norm(tf.cast(embeddings, tf.float32), axis=-1)),
        }

    def _measure(self, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the embeddings in float32, scaled down if too large, and their distances [B, B]."""
        embeddings = to_float32(embeddings)
        largest = tf.stop_gradient(tf.reduce_max(tf.abs(embeddings)))
        embeddings = embeddings * (_LARGEST_COMPONENT / tf.maximum(largest, _LARGEST_COMPONENT))
        distance = self.core.options.distance
        kind = "euclidean" if distance == "cosine" else str(distance)
        return embeddings, pairwise_distances(embeddings, kind=kind)

    def _update(self, mean: tf.Tensor, deviation: tf.Tensor, finite: tf.Tensor) -> None:
        momentum = tf.where(self.batches == 0, 0.0, self.statistics_momentum)
        # An overflowing step of a float16 run is skipped by its loss scaling; the statistics skip it too.
        for variable, value in ((self.running_mean, mean), (self.running_deviation, deviation)):
            update = momentum * variable + (1.0 - momentum) * value
            variable.assign(tf.where(finite, update, variable))
        self.batches.assign_add(tf.cast(finite, tf.int64))


def _scale(embeddings: tf.Tensor, mean: tf.Tensor) -> tf.Tensor:
    return embeddings / tf.where(mean > _SMALLEST_SCALE, mean, 1.0)


def _mean(values: tf.Tensor) -> tf.Tensor:
    """Computes a mean, 0 of no values."""
    return tf.math.divide_no_nan(tf.reduce_sum(values), tf.cast(tf.size(values), tf.float32))
