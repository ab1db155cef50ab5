"""Cross-entropy loss: a softmax over references, also known as the N-pairs loss."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, sums_of_cross_entropies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CrossEntropy(PairLoss):
    """Each anchor chooses one of its positives by a softmax over negative distances.

    With D the distances and `z = -D / temperature`, the loss is the mean over the anchors of
    `log(1 + sum_n exp(z) / sum_p exp(z))`, which is `-log` of the probability of the positives. An anchor
    without a positive counts as 0.

    With `references_per_batch` equal to the number of classes of a batch that holds one sample of each class
    first, each other sample has one positive, the first of its class: the N-pairs loss.

    Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NeurIPS 2016, eq. 6.

    Example:
        >>> loss = CrossEntropy(temperature=0.5)
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.218
    """

    only_proxy_anchor = False
    columns_in_shards = True

    def __init__(self, temperature: float = 0.11, **options: Any) -> None:
        """Sets the temperature.

        Args:
            temperature: divisor of the distances, positive.
            **options: arguments of `PairLoss`.

        Raises:
            ValueError: if the temperature is not positive.
        """
        super().__init__(**options)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.temperature = temperature

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sum of the cross-entropies, and the number of anchors."""
        return sums_of_cross_entropies(pairs.similarities / self.temperature, pairs)
