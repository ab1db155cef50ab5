"""Proxy-NCA loss with a temperature (ProxyNCA++)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, sums_of_cross_entropies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ProxyNCA(PairLoss):
    """Each sample chooses a proxy of its class by a softmax over the proxies.

    With S the cosine similarities, the logits are `(S - margin) / temperature` for the proxies of the class
    of the sample and `S / temperature` for the others. The loss is the mean over the samples of `-log` of the
    probability of their class. All proxies are in the denominator.

    Teh, DeVries, Taylor, "ProxyNCA++: revisiting and revitalizing proxy neighborhood component analysis",
    ECCV 2020.

    Example:
        >>> loss = ProxyNCA(temperature=0.5, num_classes=2, embedding_size=2)
        >>> loss.proxies.reset([[[1.0, 0.0], [0.0, 1.0]]])
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.256
    """

    only_distance = "cosine"
    only_proxy_anchor = False
    columns_in_shards = True
    pair_based = False

    def __init__(self, temperature: float = 0.11, margin: float = 0.0, **options: Any) -> None:
        """Sets the softmax.

        Args:
            temperature: divisor of the similarities, positive.
            margin: subtracted from the similarities to proxies of the sample's class.
            **options: arguments of `PairLoss`; `num_classes` and `embedding_size` are required.

        Raises:
            ValueError: if the temperature is not positive.
        """
        super().__init__(**options)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.temperature = temperature
        self.margin = margin

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns the sum of the cross-entropies, and the number of samples."""
        margins = tf.where(pairs.positives, self.margin, 0.0)
        return sums_of_cross_entropies((pairs.similarities - margins) / self.temperature, pairs)
