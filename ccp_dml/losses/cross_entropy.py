"""Cross-entropy of choosing a reference of the own class."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, sums_of_cross_entropies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CrossEntropy(PairLoss):
    """Each anchor chooses among its pairs by softmax over negative distances.

    With `z = -D / temperature` the loss is the mean over the anchors of `log(1 + sum_n exp(z) / sum_p exp(z))
    = -log(softmax mass on the positives)`. Anchors without a positive count as 0. With `references_per_batch`
    set to the number of classes of a sample-major batch, the first sample of each class is the one positive
    of the others: the N-pairs loss.

    Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NeurIPS 2016, eq. 6.
    """

    only_proxy_anchor = False
    columns_in_shards = True

    def __init__(self, temperature: float = 0.11, **options: Any) -> None:
        """Sets the softmax.

        Args:
            temperature: divisor of the distances, positive.
            **options: those of `PairLoss`.

        Raises:
            ValueError: if the temperature is not positive.
        """
        super().__init__(**options)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.temperature = temperature

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """The sum of the class docstring, and the number of anchors."""
        return sums_of_cross_entropies(pairs.similarities / self.temperature, pairs)
