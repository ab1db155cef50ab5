"""Proxy synthesis: samples and proxies of synthetic classes, mixed from neighbours in the batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from ccp_dml.distributed.replicas import per_replica_state
from ccp_dml.geometry import normalize, to_float32
from ccp_dml.losses.proxy_anchor import ProxyAnchor
from ccp_dml.losses.proxy_nca import ProxyNCA
from ccp_dml.losses.virtual_softmax import VirtualSoftmax
from ccp_dml.losses.wrapper import WrappingLoss
from ccp_dml.models.proxies import Proxies


class Synthesis(NamedTuple):
    """Samples and proxies of synthetic classes.

    Attributes:
        embeddings: float32 [S, D], mixtures of normalised embeddings, not normalised again.
        labels: int32 [S].
        proxies: float32 [K * S, D], not normalised again.
        proxy_labels: int32 [K * S].
    """

    embeddings: tf.Tensor
    labels: tf.Tensor
    proxies: tf.Tensor
    proxy_labels: tf.Tensor


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ProxySynthesis(WrappingLoss):
    """PS: a proxy loss that also has to separate synthetic classes, which lie between the real ones.

    With e the normalised embeddings of the batch and p the normalised proxies of their classes, sample i and
    its predecessor (for the first sample, the last one) make the synthetic sample `r e_i + (1 - r) e_(i-1)`
    and the synthetic proxies `r p_i + (1 - r) p_(i-1)`. The same two classes in the same order make the same
    synthetic class; two samples of one class make a sample of this class. The base loss sees real and
    synthetic samples and proxies, all normalised. The rate r ~ Beta(mixing_alpha, mixing_alpha) is the same
    for a whole batch; it is a function of the seed and the number of batches so far.

    Gu, Ko, Kim, "Proxy synthesis: learning with synthetic classes for deep metric learning", AAAI 2021.

    Attributes:
        steps: int64 variable, number of rates drawn so far.

    Example:
        >>> loss = ProxySynthesis(ccp_dml.losses.ProxyAnchor(num_classes=3, embedding_size=2))
        >>> float(loss([0, 0, 2], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])) > 0
        True
    """

    base: ProxyNCA | ProxyAnchor | VirtualSoftmax
    proxies: Proxies

    def __init__(
        self,
        base: ProxyNCA | ProxyAnchor | VirtualSoftmax,
        mixing_alpha: float = 0.4,
        synthetic_share: float = 1.0,
        mixing_rate: float | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        """Wraps a loss.

        Args:
            base: a `ProxyNCA`, `ProxyAnchor` or `VirtualSoftmax`, without `proxy_pairs` and
                `shared_proxies`. A virtual softmax gives each synthetic sample a virtual proxy, too.
            mixing_alpha: parameter of the distribution of the rate, positive; small values mix little.
            synthetic_share: number of synthetic samples relative to the batch, in (0, 1]; the first ones are
                kept.
            mixing_rate: a fixed rate, in [0, 1]; None for random ones.
            seed: seed of the rates, non-negative.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if `base` is another loss, or a number is out of range.
        """
        super().__init__(base, name=name)
        takes_proxies = isinstance(base, ProxyNCA | ProxyAnchor | VirtualSoftmax)
        if not takes_proxies or self.core.options.proxy_pairs or self.core.shared_proxies:
            raise ValueError(
                "proxy synthesis wraps ProxyNCA, ProxyAnchor or VirtualSoftmax, without proxy_pairs and "
                f"shared_proxies; found {type(base).__name__}"
            )
        if mixing_alpha <= 0:
            raise ValueError(f"mixing_alpha is {mixing_alpha}; expected a positive number")
        if not 0 < synthetic_share <= 1:
            raise ValueError(f"synthetic_share is {synthetic_share}; expected above 0 and at most 1")
        if mixing_rate is not None and not 0 <= mixing_rate <= 1:
            raise ValueError(f"mixing_rate is {mixing_rate}; expected at least 0 and at most 1")
        self.mixing_alpha = mixing_alpha
        self.synthetic_share = synthetic_share
        self.mixing_rate = mixing_rate
        self.seed = seed
        self.steps = per_replica_state(0, tf.int64, "steps")

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `proxy_loss`, and moves on to the next rate."""
        rate = self.next_rate()
        self.steps.assign_add(1)
        proxies, embeddings = self.proxies, to_float32(embeddings)
        synthesis = self.synthesize(labels, embeddings, rate)
        synthetic, synthetic_labels = proxies.shards.once(synthesis.proxies, synthesis.proxy_labels)
        loss = self.base.compare(
            tf.concat([embeddings, synthesis.embeddings], axis=0),
            tf.concat([self.classes(labels), synthesis.labels], axis=0),
            tf.concat([proxies.embeddings, synthetic], axis=0),
            tf.concat([proxies.labels, synthetic_labels], axis=0),
            shards=proxies.shards,
        )
        return {"proxy_loss": loss}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the figures of the base loss, without synthetic classes. Changes no state."""
        return self.base.diagnostics(labels, embeddings)

    def next_rate(self) -> tf.Tensor:
        """Returns the rate of the next batch: float32 scalar in [0, 1]."""
        if self.mixing_rate is not None:
            return tf.constant(self.mixing_rate, tf.float32)
        return symmetric_beta(self.mixing_alpha, tf.stack([tf.constant(self.seed, tf.int64), self.steps]))

    def synthesize(self, labels: tf.Tensor, embeddings: tf.Tensor, rate: float | tf.Tensor) -> Synthesis:
        """Mixes the samples of a batch, and their proxies, with their predecessors.

        Args:
            labels: as for `components`.
            embeddings: as for `components`.
            rate: r, in [0, 1].
        """
        classes, kind = self.classes(labels), self.core.options.normalization
        samples = normalize(embeddings, kind)
        proxies = normalize(self.proxies.of_classes(classes), kind)
        count = _rounded_share(samples, self.synthetic_share)
        synthetic_labels = _labels_of_mixtures(classes, self.proxies.num_classes)[:count]
        mixed_proxies = _mix_with_predecessors(proxies, rate, axis=1)[:, :count]
        return Synthesis(
            embeddings=_mix_with_predecessors(samples, rate, axis=0)[:count],
            labels=synthetic_labels,
            proxies=tf.reshape(mixed_proxies, [-1, self.proxies.embedding_size]),
            proxy_labels=tf.tile(synthetic_labels, [self.proxies.proxies_per_class]),
        )


def symmetric_beta(alpha: float, seed: tf.Tensor) -> tf.Tensor:
    """Draws from Beta(alpha, alpha): float32 scalar in [0, 1].

    With U, V uniform and n = 2 alpha, T = sqrt(n (U^(-2 / n) - 1)) cos(2 pi V) has Student's distribution
    with n degrees of freedom, and (1 + T / sqrt(n + T^2)) / 2 has the Beta distribution.

    Devroye, "Random variate generation in one line of code", 1996.

    Args:
        alpha: positive.
        seed: int [2]. XLA draws another sequence than plain TensorFlow.
    """
    u, v = tf.unstack(tf.random.stateless_uniform([2], seed=seed, minval=1e-30))
    share = tf.pow(u, 1.0 / alpha)
    cosine = tf.cos(2.0 * math.pi * v)
    # The quotient of the docstring, rearranged so that nothing overflows.
    spread = tf.sqrt(1.0 - share) * cosine
    return 0.5 + 0.5 * tf.math.divide_no_nan(spread, tf.sqrt(share + tf.square(spread)))


def _mix_with_predecessors(values: tf.Tensor, rate: float | tf.Tensor, axis: int) -> tf.Tensor:
    return rate * values + (1.0 - rate) * tf.roll(values, shift=1, axis=axis)


def _labels_of_mixtures(classes: tf.Tensor, num_classes: int) -> tf.Tensor:
    """Labels each sample mixed with its predecessor: int32 [B], from `num_classes` on for new classes."""
    predecessors = tf.roll(classes, shift=1, axis=0)
    same = (classes[:, tf.newaxis] == classes) & (predecessors[:, tf.newaxis] == predecessors)
    size = tf.size(classes)
    first_alike = tf.reduce_min(tf.where(same, tf.range(size), size), axis=1)
    return tf.where(classes == predecessors, classes, num_classes + first_alike)


def _rounded_share(samples: tf.Tensor, share: float) -> int | tf.Tensor:
    size = samples.shape[0]
    if size is not None:
        return round(size * share)
    return tf.cast(tf.round(tf.cast(tf.shape(samples)[0], tf.float32) * share), tf.int32)
