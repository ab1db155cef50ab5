"""Virtual softmax: each sample also competes with a virtual class in its own direction."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, Shards
from ccp_dml.geometry import normalize, squared_norms, to_float32
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.proxy_nca import ProxyNCA
from ccp_dml.losses.wrapper import WrappingLoss


@tf.keras.utils.register_keras_serializable("ccp_dml")
class VirtualSoftmax(WrappingLoss):
    """A softmax over proxies with one more negative per sample: a virtual proxy in its direction.

    The similarity of a normalised sample e to its virtual proxy is `|e|^2`, the largest similarity to a proxy
    of the same norm. So the proxies of the class have to come ever closer to the sample.

    Chen, Deng, Shen, "Virtual class enhanced discriminative embedding learning", NeurIPS 2018.

    Example:
        >>> loss = VirtualSoftmax(ccp_dml.losses.ProxyNCA(num_classes=3, embedding_size=2))
        >>> sorted(loss.components([0, 2], [[1.0, 0.0], [0.0, 1.0]]))
        ['proxy_loss']
    """

    base: ProxyNCA

    def __init__(self, base: ProxyNCA, name: str | None = None) -> None:
        """Wraps a loss.

        Args:
            base: a `ProxyNCA` without `proxy_pairs`.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if `base` is another loss.
        """
        super().__init__(base, name=name)
        if not isinstance(base, ProxyNCA) or base.options.proxy_pairs:
            raise ValueError(
                f"virtual softmax wraps ProxyNCA without proxy_pairs; found {type(base).__name__}"
                f"{' with proxy_pairs' if isinstance(base, ProxyNCA) else ''}"
            )

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `proxy_loss`."""
        embeddings = to_float32(embeddings)
        pairs = self._with_virtual_proxies(self.base.batch_pairs(labels, embeddings), embeddings)
        return {"proxy_loss": self.base.options.weight * self.base.formula(pairs)}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the figures of the base class; the virtual proxies are among the negatives."""
        pairs = self._with_virtual_proxies(self.base.batch_pairs(labels, embeddings), embeddings)
        return self.base.describe(pairs, embeddings)

    def compare(
        self,
        embeddings: tf.Tensor,
        labels: tf.Tensor,
        references: tf.Tensor,
        reference_labels: tf.Tensor,
        shards: Shards = SINGLE_SHARD,
    ) -> tf.Tensor:
        """Returns the weighted loss of samples against proxies and virtual ones; see `PairLoss.compare`."""
        pairs = self.base.pairs(embeddings, labels, references, reference_labels, shards=shards)
        return self.base.options.weight * self.base.formula(self._with_virtual_proxies(pairs, embeddings))

    def _with_virtual_proxies(self, pairs: Pairs, embeddings: tf.Tensor) -> Pairs:
        """Adds a column for the virtual proxies of the raw embeddings, which belong to the first shard."""
        norms = squared_norms(normalize(embeddings, self.base.options.normalization))
        similarities = pairs.shards.enter(norms)[:, tf.newaxis]
        negative = tf.fill(tf.shape(similarities), pairs.shards.first)
        return dataclasses.replace(
            pairs,
            distances=tf.concat([pairs.distances, -similarities], axis=1),
            positives=tf.concat([pairs.positives, tf.zeros_like(negative)], axis=1),
            negatives=tf.concat([pairs.negatives, negative], axis=1),
            sample_labels=tf.concat([pairs.sample_labels, [-1]], axis=0),
        )
