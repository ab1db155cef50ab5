"""Chance-constrained proxies: a pair loss on the batch, and on the batch against proxies."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.geometry import to_float32
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.wrapper import ExtendingLoss
from ccp_dml.models.proxies import Proxies
from ccp_dml.models.sharded_proxies import make_proxies


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CCP(ExtendingLoss):
    """The loss of one problem instance of the alternating projections.

    With L any pair-based loss, it is
    `pair_weight * L(pairs of the batch) + proxy_weight * L(batch against proxies)`; around a wrapper of L the
    first term is the loss of that wrapper. The proxies are trained together with the embedding, and replaced
    between problem instances by `ccp_dml.projections.projections.AlternatingProjections`.

    Gürbüz, Can, Alatan, "Deep metric learning with chance constraints", WACV 2024.

    Attributes:
        proxies: the proxies of all classes.

    Example:
        >>> loss = CCP(ccp_dml.losses.Contrastive(), num_classes=3, embedding_size=2, proxies_per_class=2)
        >>> loss.proxies.embeddings.shape
        TensorShape([6, 2])
        >>> sorted(loss.components([0, 0, 2], [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]]))
        ['pair_loss', 'proxy_loss']
    """

    proxies: Proxies

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
            seed: seed of the first values of sharded proxies.
            **options: `pair_weight` (default 0.1), `mine_pairs`, `pair_normalization` and `name`, see
                `ExtendingLoss`.

        Raises:
            ValueError: if L needs or has proxies, or an option is invalid.
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
        self.proxies = make_proxies(*sizes, proxy_learning_rate_multiplier, shard_proxies, seed)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `proxy_loss`, and `pair_loss` or the components of the wrapper inside."""
        embeddings = to_float32(embeddings)
        of_batch = self.batch_components(labels, embeddings)
        to_proxies = self.core.options.weight * self.core.formula(self._proxy_pairs(labels, embeddings))
        return {**of_batch, "proxy_loss": self.proxy_weight * to_proxies}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the figures of the base class, and distances to the proxies.

        `active_pairs` is the one of the batch against the proxies, the distances are those in the batch;
        `proxy_positive_distances` and `proxy_negative_distances` are those to the proxies.
        """
        to_proxies = self.core.describe(self._proxy_pairs(labels, embeddings), embeddings)
        return {
            **self.batch_diagnostics(labels, embeddings),
            "active_pairs": to_proxies["active_pairs"],
            "proxy_positive_distances": to_proxies["positive_distances"],
            "proxy_negative_distances": to_proxies["negative_distances"],
        }

    def _proxy_pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        proxies = self.proxies
        return self.core.pairs(
            embeddings, self.classes(labels), proxies.embeddings, proxies.labels, shards=proxies.shards
        )
