"""Margin loss: a boundary between positive and negative distances, fixed or learned per class."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, average_of_hinges, hinge, sums_of_hinges


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Margin(PairLoss):
    """Positives nearer than `beta - alpha`, negatives farther than `beta + alpha`.

    With D the distances, the terms are `relu(D - beta + alpha)` of the positive and `relu(beta + alpha - D)`
    of the negative pairs, averaged as in the contrastive loss, plus `beta_weight` times the mean beta of the
    anchors.

    Wu et al., "Sampling matters in deep embedding learning", ICCV 2017, eq. 5 and 7.

    Attributes:
        class_beta: float32 variable [C], the boundary of each class; None if it is fixed.
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
            per_class: learn a boundary for each class (that of the anchor counts); `num_classes` is needed.
            beta_weight: weight of the mean boundary.
            **options: those of `PairLoss`.

        Raises:
            ValueError: if `per_class` is asked for without `num_classes`.
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
        """As in the base class: boundaries per class are not sharded."""
        return super().in_shards and not self.per_class

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """The hinge terms of the class docstring, and the boundaries of the anchors."""
        anchors = pairs.anchor_count
        if self.class_beta is None:
            boundary = tf.fill(tf.shape(pairs.anchor_labels), float(self.beta))
            boundaries = anchors * float(self.beta)
        else:
            # Not a gather: its gradient is sparse, which gradient transforms and optimizers treat
            # differently.
            classes = tf.one_hot(pairs.anchor_labels, self.class_beta.shape[0])
            boundary = tf.linalg.matvec(classes, self.class_beta)
            boundaries = tf.reduce_sum(boundary)
        beyond = pairs.distances - boundary[:, tf.newaxis]
        too_far = hinge(beyond + self.alpha, pairs.positives)
        too_near = hinge(self.alpha - beyond, pairs.negatives)
        return [*sums_of_hinges(too_far, too_near, pairs), boundaries, anchors]

    def combined(self, sums: list[tf.Tensor]) -> tf.Tensor:
        """As in the class docstring."""
        *hinges, boundaries, anchors = sums
        mean_boundary = tf.math.divide_no_nan(boundaries, anchors)
        return average_of_hinges(hinges, self.options.average) + self.beta_weight * mean_boundary
