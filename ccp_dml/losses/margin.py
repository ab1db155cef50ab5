"""Margin loss: a boundary between positive and negative distances, fixed or learned per class."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, average_of_hinges, hinge, sums_of_hinges


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Margin(PairLoss):
    """Positives are nearer than `beta - alpha`, negatives farther than `beta + alpha`.

    With D the distances, the terms are `max(0, D - beta + alpha)` of the positive and
    `max(0, beta + alpha - D)` of the negative pairs, averaged as in the contrastive loss, plus `beta_weight`
    times the mean beta of the anchors.

    Wu et al., "Sampling matters in deep embedding learning", ICCV 2017, eq. 5 and 7.

    Attributes:
        class_beta: float32 variable [C], the boundary of each class; None if it is fixed.

    Example:
        >>> loss = Margin(alpha=0.2, beta=0.8)
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.138
    """

    columns_in_shards = True

    def __init__(
        self,
        alpha: float = 0.2,
        beta: float = 1.2,
        per_class: bool = False,
        beta_weight: float = 0.0,
        **options: Any,
    ) -> None:
        """Sets the boundary, in units of the distance.

        Args:
            alpha: half the width of the gap.
            beta: the boundary, or its initial value.
            per_class: True to learn a boundary for each class of anchors; needs `num_classes`.
            beta_weight: weight of the mean boundary.
            **options: arguments of `PairLoss`.

        Raises:
            ValueError: if `per_class` is True without `num_classes`.
        """
        super().__init__(**options)
        if per_class and self.num_classes is None:
            raise ValueError("per_class is True, but num_classes is None; a boundary per class needs it")
        self.alpha = alpha
        self.beta = beta
        self.per_class = per_class
        self.beta_weight = beta_weight
        self.class_beta: tf.Variable | None = None
        if per_class:
            self.class_beta = tf.Variable(tf.fill([self.num_classes], float(beta)), name="class_beta")

    @property
    def in_shards(self) -> bool:
        """False with boundaries per class, which are not sharded."""
        return super().in_shards and not self.per_class

    @property
    def label_limit(self) -> int | None:
        """The number of classes, if each has a boundary; see the base class."""
        return self.num_classes if self.per_class else super().label_limit

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sums of the hinge terms, the sum of the boundaries, and the number of anchors."""
        anchors = pairs.anchor_count
        if self.class_beta is None:
            boundary = tf.fill(tf.shape(pairs.anchor_labels), float(self.beta))
            boundaries = anchors * float(self.beta)
        else:
            # Not a gather, whose sparse gradient optimizers and transforms treat differently.
            classes = tf.one_hot(pairs.anchor_labels, self.class_beta.shape[0])
            boundary = tf.linalg.matvec(classes, self.class_beta)
            boundaries = tf.reduce_sum(boundary)
        beyond = pairs.distances - boundary[:, tf.newaxis]
        too_far = hinge(beyond + self.alpha, pairs.positives)
        too_near = hinge(self.alpha - beyond, pairs.negatives)
        return [*sums_of_hinges(too_far, too_near, pairs), boundaries, anchors]

    def combined(self, sums: list[tf.Tensor]) -> tf.Tensor:
        """Returns the average of the hinge terms plus the weighted mean boundary."""
        *hinges, boundaries, anchors = sums
        mean_boundary = tf.math.divide_no_nan(boundaries, anchors)
        return average_of_hinges(hinges, self.options.average) + self.beta_weight * mean_boundary
