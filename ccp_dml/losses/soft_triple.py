"""SoftTriple loss: a softmax over classes with several proxies each."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.geometry import check_normalization, normalize
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, masked_logsumexp
from ccp_dml.models.proxies import Proxies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class SoftTriple(PairLoss):
    """A softmax over classes; the similarity to a class is a weighted mean over its proxies.

    With S_kc the similarity to the k-th proxy of class c, `s_c = sum_k softmax_k(S_kc / temperature) S_kc`.
    The loss is the mean of `-log softmax_c(scale (s_c - margin [c = y]))` at the class y of the sample, plus
    `center_weight` times `sum_c sum_(k<j) sqrt(max(0, 2 - 2 w_ck.w_cj)) / (C K (K - 1))` over the proxies w,
    which pulls the proxies of a class together.

    Qian et al., "SoftTriple loss: deep metric learning without triplet sampling", ICCV 2019, eq. 9. The
    temperature here is 1 / gamma in the notation of the paper.

    Example:
        >>> loss = SoftTriple(scale=2.0, center_weight=0.0, num_classes=2, embedding_size=2)
        >>> loss.proxies.reset([[[1.0, 0.0], [0.0, 1.0]]])
        >>> round(float(loss([0, 0, 1], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])), 3)
        0.26
    """

    proxies: Proxies
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
            scale: factor on the similarities to the classes.
            temperature: temperature of the softmax over the proxies of a class, positive.
            margin: subtracted from the similarity to the class of the sample.
            center_weight: weight of the distances between the proxies of a class.
            center_normalization: normalisation of the proxies in these distances, which assume unit vectors.
            **options: arguments of `PairLoss`; `num_classes` and `embedding_size` are required.

        Raises:
            ValueError: if an option is invalid.
        """
        super().__init__(**{"distance": "cosine", **options})
        if temperature <= 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        if self.options.miner is not None or self.options.proxy_pairs or self.shared_proxies:
            raise ValueError("SoftTriple takes no miner, no proxy_pairs and no shared_proxies")
        check_normalization(center_normalization, "center_normalization")
        self.scale = scale
        self.temperature = temperature
        self.margin = margin
        self.center_weight = center_weight
        self.center_normalization = center_normalization

    def formula(self, pairs: Pairs) -> tf.Tensor:
        """Returns the mean cross-entropy plus the weighted distances between proxies: float32 scalar."""
        k, vectors = self.proxies.proxies_per_class, self.proxies.by_class
        classes = self.proxies.labels[: vectors.shape[1]]
        similarities = tf.reshape(pairs.similarities, [-1, k, classes.shape[0]])
        weights = tf.nn.softmax(similarities / self.temperature, axis=1)
        of_classes = tf.reduce_sum(weights * similarities, axis=1)
        correct = pairs.positives[:, : classes.shape[0]]
        logits = self.scale * tf.where(correct, of_classes - self.margin, of_classes)
        of_all = masked_logsumexp(logits, classes >= 0, columns=pairs.columns)
        of_correct = pairs.columns.sum(tf.reduce_sum(tf.where(correct, logits, 0.0), axis=1))
        mean = tf.math.divide_no_nan(tf.reduce_sum(of_all - of_correct), pairs.anchor_count)
        return mean + self.center_weight * self._spread(vectors, classes >= 0)

    def _spread(self, proxies: tf.Tensor, is_class: tf.Tensor) -> tf.Tensor:
        """Averages the distances between proxies [K, C, D] of a class, where bool [C] is true: scalar."""
        vectors, k = normalize(proxies, self.center_normalization), proxies.shape[0]
        squared = 2.0 - 2.0 * tf.einsum("kcd,jcd->ckj", vectors, vectors)
        upper = tf.linalg.band_part(tf.ones([k, k], tf.bool), 0, -1) & ~tf.eye(k, dtype=tf.bool)
        counted = upper & (squared > 0.0) & is_class[:, tf.newaxis, tf.newaxis]
        distances = tf.where(counted, tf.sqrt(tf.where(counted, squared, 1.0)), 0.0)
        total = self.proxies.shards.sum(tf.reduce_sum(distances))
        return total / float(max(1, self.proxies.num_classes * k * (k - 1)))
