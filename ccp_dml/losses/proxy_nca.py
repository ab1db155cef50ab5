"""Proxy-NCA loss with a temperature (ProxyNCA++)."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, sums_of_cross_entropies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ProxyNCA(PairLoss):
    """Each sample chooses a proxy by softmax; the loss is the mean `-log` of the share of its own class.

    With S the cosine similarities, the logits are `(S - margin) / temperature` for proxies of the sample's
    class and `S / temperature` for the others. All proxies are in the denominator.

    Teh, DeVries, Taylor, "ProxyNCA++: revisiting and revitalizing proxy neighborhood component analysis",
    2020.
    """

    only_distance = "cosine"
    only_proxy_anchor = False
    columns_in_shards = True
    pair_based = False

    def __init__(self, temperature: float = 0.11, margin: float = 0.0, **options: Any) -> None:
        """Sets the softmax.

        Args:
            temperature: divisor of the similarities, positive.
            margin: taken from the similarity to proxies of the own class.
            **options: those of `PairLoss`; `num_classes` and `embedding_size` are needed.

        Raises:
            ValueError: if the temperature is not positive.
        """
        super().__init__(**options)
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.temperature = temperature
        self.margin = margin

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """The sum of the class docstring, and the number of anchors."""
        own = tf.where(pairs.positives, self.margin, 0.0)
        return sums_of_cross_entropies((pairs.similarities - own) / self.temperature, pairs)
