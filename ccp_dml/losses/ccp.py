"""Chance-constrained proxies: any pair loss, on the pairs of the batch and on the batch against proxies."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.base import MetricLoss, class_labels, in_float32
from ccp_dml.losses.wrapper import ExtendingLoss
from ccp_dml.models.proxies import Proxies
from ccp_dml.models.sharded_proxies import make_proxies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CCP(ExtendingLoss):
    """The loss of one problem instance of the alternating projections.

    `pair_weight * L(pairs of the batch) + proxy_weight * L(batch against proxies)`, with L any pair-based
    loss. A sample is never paired with itself. The proxies are trained with the embedding, and replaced
    between problem instances by `training.projections.AlternatingProjections`. Around a wrapper of L the
    first term is the whole of that wrapper.

    Gürbüz, Can, Alatan, "Deep metric learning with chance constraints", WACV 2024.
    """

    def __init__(
        self,
        base: MetricLoss,
        num_classes: int,
        embedding_size: int,
        proxies_per_class: int = 4,
        proxy_weight: float = 1.0,
        proxy_learning_rate_multiplier: float = 1.0,
        shard_proxies: bool = False,
        seed: int = 0,
        **options: Any,
    ) -> None:
        """Wraps a loss.

        Args:
            base: L, without proxies of its own, or a wrapper of it. The `weight` of L is a factor on both
                terms.
            num_classes: number of training classes.
            embedding_size: dimension of the embeddings.
            proxies_per_class: number K of proxies of each class.
            proxy_weight: weight of the batch against the proxies.
            proxy_learning_rate_multiplier: factor on the learning rate of the proxies.
            shard_proxies: spread the classes of the proxies over the replicas of the strategy in scope.
            seed: of the first values of sharded proxies.
            **options: `pair_weight` (0.1), `pair_normalization` and `mine_pairs` of the pairs of the batch,
                see `ExtendingLoss`, and `name`.

        Raises:
            ValueError: if `base` has proxies or is not defined on pairs, or an option is unknown, or one that
                the wrapper inside has.
        """
        super().__init__(base, **{"pair_weight": 0.1, **options})
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.proxies_per_class = proxies_per_class
        self.proxy_weight = proxy_weight
        self.proxy_learning_rate_multiplier = proxy_learning_rate_multiplier
        self.shard_proxies = shard_proxies
        self.seed = seed
        sizes = num_classes, proxies_per_class, embedding_size
        self.proxies: Proxies = make_proxies(*sizes, proxy_learning_rate_multiplier, shard_proxies, seed)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """`pair_loss`, or the parts of the wrapper inside, and `proxy_loss`; see the base class."""
        embeddings = in_float32(embeddings)
        of_batch = self.batch_components(labels, embeddings)
        proxies = self.proxies
        to_proxies = self.core.compare(
            embeddings, class_labels(labels), proxies.embeddings, proxies.labels, shards=proxies.shards
        )
        return {**of_batch, "proxy_loss": self.proxy_weight * to_proxies}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """As the base class says: `active_pairs` of batch against proxies, distances among the batch.

        The distances to the proxies are there as `proxy_positive_distances` and `proxy_negative_distances`.
        """
        proxies = self.proxies
        pairs = self.core.pairs(
            embeddings, class_labels(labels), proxies.embeddings, proxies.labels, shards=proxies.shards
        )
        to_proxies = self.core.describe(pairs, embeddings)
        return {
            **self.batch_diagnostics(labels, embeddings),
            "active_pairs": to_proxies["active_pairs"],
            "proxy_positive_distances": to_proxies["positive_distances"],
            "proxy_negative_distances": to_proxies["negative_distances"],
        }
