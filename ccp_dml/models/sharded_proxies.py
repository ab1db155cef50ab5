"""Class proxies of which each replica holds those of its own classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.distributed.shards import ReplicaShards
from ccp_dml.distributed.tables import ShardedTable
from ccp_dml.models.proxies import Proxies

# Classes whose first proxies are drawn at once: the draw does not depend on the number of replicas.
_CLASSES_PER_DRAW = 2**14
# Standard deviation of a standard normal distribution that is cut off at 2.
_CUT_NORMAL = 0.8796256610342398


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ShardedProxies(Proxies):
    """K trainable proxies for each of C classes, the classes spread over the R replicas of a strategy.

    The strategy is that in scope when the layer is made. With n = ceil(C / R), replica r holds the classes
    from r n on, up to n of them; where there are fewer, the rest of its table is of no class: these rows have
    the label -1 and take part in nothing. In replica context `embeddings`, `labels` and `by_class` are those
    of the replica, and a gradient for `embeddings` is complete there: it must not be added up over replicas.

    A checkpoint holds the whole table, which `Proxies` and any number of replicas can read. One that several
    workers write has to be written within `tables.gathered_tables`: else it holds the part of one.

    Attributes:
        embeddings: float32 variable, [n * K, D] on each replica, with values of its own there; outside of
            replica context it reads as that of the first replica, and `whole` gives all.
        classes_per_shard: n.
        seed: of the first proxies.
    """

    def __init__(
        self,
        num_classes: int,
        proxies_per_class: int,
        embedding_size: int,
        learning_rate_multiplier: float = 1.0,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """Creates the proxies, with values of the distribution `he_normal` of the whole table.

        Args:
            num_classes: number of classes C.
            proxies_per_class: number of proxies K of a class.
            embedding_size: number of dimensions D.
            learning_rate_multiplier: factor on the learning rate of these weights.
            seed: of the first values, which do not depend on the number of replicas.
            **kwargs: `name` and `trainable` of a Keras layer.

        Raises:
            ValueError: if a size is below 1 or the multiplier is negative.
        """
        self._strategy = tf.distribute.get_strategy()
        self.seed = seed
        self._table = ShardedTable(self._strategy, (proxies_per_class, num_classes, embedding_size))
        self.classes_per_shard = self._table.classes_per_shard
        super().__init__(
            num_classes, proxies_per_class, embedding_size, learning_rate_multiplier, "zeros", **kwargs
        )
        if self._strategy.num_replicas_in_sync > 1:
            self.shards = ReplicaShards()
        self._table.fill(self.embeddings, self._first_values)
        self.checkpoint_as_table([self.embeddings])

    @property
    def labels(self) -> tf.Tensor:
        """Class of every row of `embeddings` on this replica: int32 [n * K], -1 where there is none."""
        if self.shards.is_single:
            return super().labels
        classes = self._first_class() + tf.range(self.classes_per_shard, dtype=tf.int32)
        return tf.tile(tf.where(classes < self.num_classes, classes, -1), [self.proxies_per_class])

    def of_classes(self, classes: tf.Tensor) -> tf.Tensor:
        """The proxies of classes int32 [B], whichever replica has them: float32 [K, B, D]."""
        if self.shards.is_single:
            return super().of_classes(classes)
        places = classes - self._first_class()
        here = (places >= 0) & (places < self.classes_per_shard)
        rows = tf.gather(self.by_class, tf.where(here, places, 0), axis=1)
        return self.shards.sum(tf.where(here[:, tf.newaxis], rows, 0.0))

    @property
    def by_class(self) -> tf.Tensor:
        """The proxies of this replica as float32 [K, n, D], in replica context."""
        self._check_context()
        return super().by_class

    def reset(self, embeddings: tf.Tensor) -> None:
        """Replaces all proxies, outside of replica context; see the base class."""
        embeddings = self._checked(embeddings)
        self._table.fill(self.embeddings, lambda first, last: embeddings[:, first:last])

    @property
    def classes_here(self) -> list[range]:
        """The classes of each replica of this process."""
        return self._table.local_classes

    @property
    def all_here(self) -> bool:
        """Whether all replicas are of this process."""
        return self._table.is_local

    def shards_of(self, variable: tf.Variable) -> list[tf.Tensor]:
        """As in the base class, outside of replica context; without the rows of no class."""
        parts = zip(self._table.local_shards(variable), self.classes_here)
        return [part[:, : len(classes)] for part, classes in parts]

    def rows_of(self, variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
        """As in the base class, outside of replica context; every worker has to take part."""
        if self.shards.is_single:
            return super().rows_of(variable, rows)
        classes, numbers = (np.asarray(part) for part in (rows % self.num_classes, rows // self.num_classes))

        def of_replica(replica: int, part: tf.Tensor) -> tf.Tensor:
            places = classes - replica * self.classes_per_shard
            own = (places >= 0) & (places < self.classes_per_shard)
            found = tf.gather(part, numbers * self.classes_per_shard + np.where(own, places, 0))
            return tf.where(own[:, np.newaxis], found, 0.0)

        parts = self._strategy.experimental_local_results(variable)
        found = [of_replica(replica, part) for replica, part in zip(self._table.local_replica_ids, parts)]
        return self._strategy.reduce("SUM", self._table.distributed(found), axis=None)

    def reset_shards(self, parts: Sequence[tf.Tensor]) -> None:
        """As in the base class, outside of replica context."""
        of_first = {classes.start: part for classes, part in zip(self.classes_here, parts)}
        self._table.fill(self.embeddings, lambda first, last: of_first[first])

    def whole(self) -> tf.Tensor:
        """All proxies, outside of replica context: float32 [K, C, D]; every worker has to take part."""
        return self._table.gather(self.embeddings)

    def checkpoint_as_table(self, variables: Iterable[tf.Variable]) -> None:
        """Lets checkpoints hold the whole of variables which, like `embeddings`, have a part on each replica.

        The moments that an optimizer keeps of the proxies are such; a checkpoint would hold those of the
        first replica and give them to all.

        Args:
            variables: all variables of an optimizer of `embeddings` alone, once it is built; those that have
                not the shape of `embeddings` are left alone.
        """
        self._table.register(variables)

    def get_config(self) -> dict[str, Any]:
        """Arguments that create a layer of this kind and size (its values are not part of them)."""
        config = {**super().get_config(), "seed": self.seed}
        del config["initializer"]
        return config

    def _make_table(self) -> tf.Variable:
        # A layer's `add_weight` refuses to train a variable with a value of its own on each replica.
        return tf.Variable(
            tf.zeros([self.proxies_per_class * self.classes_per_shard, self.embedding_size]),
            name="embeddings",
            trainable=True,
            synchronization=tf.VariableSynchronization.ON_READ,
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )

    def _first_class(self) -> tf.Tensor:
        self._check_context()
        context = tf.distribute.get_replica_context()
        return tf.cast(context.replica_id_in_sync_group, tf.int32) * self.classes_per_shard

    def _check_context(self) -> None:
        on_replica = tf.distribute.get_replica_context() is not None
        if not self.shards.is_single and not (on_replica and tf.distribute.get_strategy() is self._strategy):
            raise RuntimeError("the proxies are sharded over replicas; each replica has classes of its own")

    def _first_values(self, first: int, last: int) -> tf.Tensor:
        size = _CLASSES_PER_DRAW
        deviation = math.sqrt(2.0 / (self.num_classes * self.proxies_per_class)) / _CUT_NORMAL
        draws = range(first // size, math.ceil(last / size))
        shape = [self.proxies_per_class, size, self.embedding_size]
        blocks = [
            tf.random.stateless_truncated_normal(shape, seed=[self.seed, block], stddev=deviation)[
                :, max(0, first - block * size) : last - block * size
            ]
            for block in draws
        ]
        return tf.concat(blocks, axis=1)


def make_proxies(
    num_classes: int,
    proxies_per_class: int,
    embedding_size: int,
    learning_rate_multiplier: float,
    sharded: bool,
    seed: int,
) -> Proxies:
    """The proxies that a loss trains, sharded over the replicas of the strategy in scope or not."""
    sizes = num_classes, proxies_per_class, embedding_size
    if sharded:
        return ShardedProxies(*sizes, learning_rate_multiplier, seed)
    return Proxies(*sizes, learning_rate_multiplier)
