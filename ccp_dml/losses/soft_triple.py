"""SoftTriple loss: several proxies per class, chosen softly, pulled together where they are not needed."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.distributed.shards import Shards
from ccp_dml.geometry import check_normalization, normalize
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs
from ccp_dml.models.proxies import Proxies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class SoftTriple(PairLoss):
    """Softmax over classes, the similarity to a class being a softmax-weighted mean over its proxies.

    With S_kc the similarity to the k-th proxy of class c, `s_c = sum_k softmax_k(S_kc / temperature) S_kc`.
    The loss is the mean of `-log softmax_c(scale (s_c - margin [c = y]))` at the own class y, plus
    `center_weight` times `sum_c sum_(k<j) sqrt(relu(2 - 2 w_ck.w_cj)) / (C K (K - 1))` over the proxies w of
    a class.

    Qian et al., "SoftTriple loss: deep metric learning without triplet sampling", ICCV 2019, eq. 9; there the
    weights are softmax_k(gamma S_kc) or, as here, with 1 / gamma in the paper's notation.
    """

    only_proxy_anchor = False
    pair_based = False
    columns_in_shards = True

    def __init__(
        self,
        scale: float = 20.0,
        temperature: float = 0.1,
        margin: float = 0.01,
        center_weight: float = 0.2,
        center_normalization: str = "unit",
        **options: Any,
    ) -> None:
        """Sets the softmaxes.

        Args:
            scale: factor on the class similarities.
            temperature: divisor of the similarities that weigh the proxies of a class, positive.
            margin: taken from the similarity to the own class.
            center_weight: weight of the distances between proxies of a class.
            center_normalization: of the proxies in that term; `'none'` takes the raw vectors for unit
                vectors.
            **options: those of `PairLoss`; `num_classes` and `embedding_size` are needed.

        Raises:
            ValueError: if an option is out of range.
        """
        super().__init__(**{"distance": "cosine", **options})
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        if self.options.miner is not None or self.options.proxy_pairs or self.shared_proxies:
            raise ValueError(
                "SoftTriple compares samples with all proxies, and these are its own; "
                "it takes no miner, no proxy_pairs and no shared_proxies"
            )
        check_normalization(center_normalization, "center_normalization")
        self.scale = scale
        self.temperature = temperature
        self.margin = margin
        self.center_weight = center_weight
        self.center_normalization = center_normalization

    def formula(self, pairs: Pairs) -> tf.Tensor:
        """As in the class docstring."""
        proxies = self.proxies
        assert proxies is not None
        classes = proxies.labels[: proxies.by_class.shape[1]]
        similarities = tf.reshape(pairs.similarities, [-1, proxies.proxies_per_class, classes.shape[0]])
        weights = tf.nn.softmax(similarities / self.temperature, axis=1)
        of_classes = tf.reduce_sum(weights * similarities, axis=1)
        own = pairs.positives[:, : classes.shape[0]]
        logits = self.scale * tf.where(own, of_classes - self.margin, of_classes)
        cost = _cross_entropy(logits, own, classes >= 0, pairs.columns)
        return tf.reduce_mean(cost) + self.center_weight * self._spread(proxies, classes >= 0)

    def _spread(self, of_classes: Proxies, known: tf.Tensor) -> tf.Tensor:
        """The term of the proxies of a class, of classes known [C]: float32 scalar."""
        proxies = normalize(of_classes.by_class, self.center_normalization)
        k, classes = of_classes.proxies_per_class, of_classes.num_classes
        squared = 2.0 - 2.0 * tf.einsum("kcd,jcd->ckj", proxies, proxies)
        upper = tf.linalg.band_part(tf.ones([k, k], tf.bool), 0, -1) & ~tf.eye(k, dtype=tf.bool)
        counted = upper & (squared > 0.0) & known[:, tf.newaxis, tf.newaxis]
        distances = tf.where(counted, tf.sqrt(tf.where(counted, squared, 1.0)), 0.0)
        return of_classes.shards.sum(tf.reduce_sum(distances)) / float(max(1, classes * k * (k - 1)))


def _cross_entropy(logits: tf.Tensor, own: tf.Tensor, known: tf.Tensor, columns: Shards) -> tf.Tensor:
    """Cross-entropy of each row.

    Args:
        logits: float32 [A, C], of the classes of this shard.
        own: bool [A, C], the class of each row.
        known: bool [C], whether a column is a class at all.
        columns: of the pairs.

    Returns:
        float32 [A].
    """
    # A number, not minus infinity, which would have no gradient.
    logits += tf.where(known, 0.0, logits.dtype.min / 2.0)
    largest = columns.max(tf.reduce_max(logits, axis=1))
    total = columns.sum(tf.reduce_sum(tf.exp(logits - largest[:, tf.newaxis]), axis=1))
    of_own = columns.sum(tf.reduce_sum(tf.where(own, logits, 0.0), axis=1))
    return tf.math.log(total) + largest - of_own
