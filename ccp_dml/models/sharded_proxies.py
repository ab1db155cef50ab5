"""Class proxies of which each replica holds those of its own classes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ccp_dml.models.class_shards import ReplicaShards
from ccp_dml.models.proxies import Proxies

# Classes whose first proxies are drawn at once: the draw does not depend on the number of replicas.
_CLASSES_PER_DRAW = 2**14
# Standard deviation of a standard normal distribution that is cut off at 2.
_CUT_NORMAL = 0.8796256610342398

# (first class, class after the last) -> float32 [K, count, D].
_Source = Callable[[int, int], tf.Tensor]


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ShardedProxies(Proxies):
    """K trainable proxies for each of C classes, the classes spread over the R replicas of a strategy.

    The strategy is that in scope when the layer is made. With n = ceil(C / R), replica r holds the classes
    from r n on, up to n of them; where there are fewer, the rest of its table is of no class: these rows have
    the label -1 and take part in nothing. In replica context `embeddings`, `labels` and `by_class` are those
    of the replica, and a gradient for `embeddings` is complete there: it must not be added up over replicas.

    A checkpoint holds the whole table, as `Proxies` writes it, so that the number of replicas may change;
    every worker has to take part in writing and reading it.

    Attributes:
        embeddings: float32 variable, [n * K, D] on each replica, with values of its own there.
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
        replicas = self._strategy.num_replicas_in_sync
        self.seed = seed
        self.classes_per_shard = math.ceil(num_classes / replicas)
        super().__init__(
            num_classes, proxies_per_class, embedding_size, learning_rate_multiplier, "zeros", **kwargs
        )
        if replicas > 1:
            self.shards = ReplicaShards()
        self._fill(self._first_values)
        # In place of the variable, of which a checkpoint would hold the part of one replica.
        self._track_trackable(_WholeTable(self), "embeddings", overwrite=True)

    @property
    def labels(self) -> tf.Tensor:
        """Class of every row of `embeddings` on this replica: int32 [n * K], -1 where there is none."""
        if self.shards.alone:
            return super().labels
        classes = self._first_class() + tf.range(self.classes_per_shard, dtype=tf.int32)
        return tf.tile(tf.where(classes < self.num_classes, classes, -1), [self.proxies_per_class])

    def of_classes(self, classes: tf.Tensor) -> tf.Tensor:
        """The proxies of classes int32 [B], whichever replica has them: float32 [K, B, D]."""
        if self.shards.alone:
            return super().of_classes(classes)
        places = classes - self._first_class()
        here = (places >= 0) & (places < self.classes_per_shard)
        rows = tf.gather(self.by_class, tf.where(here, places, 0), axis=1)
        return self.shards.sum(tf.where(here[:, tf.newaxis], rows, 0.0))

    def reset(self, embeddings: tf.Tensor) -> None:
        """Replaces all proxies, outside of replica context; see the base class."""
        embeddings = self._checked(embeddings)
        self._fill(lambda first, last: embeddings[:, first:last])

    def reset_here(self, embeddings: tf.Tensor) -> None:
        """Replaces the proxies of this replica, in replica context.

        Args:
            embeddings: float32 [K, n, D].
        """
        self.embeddings.assign(tf.reshape(embeddings, [-1, self.embedding_size]))

    def whole(self) -> tf.Tensor:
        """All proxies, outside of replica context: float32 [K, C, D]; every worker has to take part."""
        strategy, shape = self._strategy, [self.proxies_per_class, -1, self.embedding_size]
        local = strategy.experimental_local_results(self.embeddings)
        if len(local) < strategy.num_replicas_in_sync:
            parts = strategy.run(tf.function(lambda: tf.identity(self.by_class)))
            return strategy.gather(parts, axis=1)[:, : self.num_classes]
        with tf.device("CPU:0"):
            parts = [tf.reshape(part, shape) for part in local]
            return tf.concat(parts, axis=1)[:, : self.num_classes]

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
            aggregation=tf.VariableAggregation.NONE,
        )

    def _first_class(self) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        if context is None:
            raise RuntimeError("the proxies are sharded over replicas; each replica has labels of its own")
        return tf.cast(context.replica_id_in_sync_group, tf.int32) * self.classes_per_shard

    def _fill(self, source: _Source) -> None:
        strategy = self._strategy
        replicas = strategy.experimental_local_results(
            strategy.experimental_distribute_values_from_function(lambda here: here.replica_id_in_sync_group)
        )
        for replica, table in zip(replicas, strategy.experimental_local_results(self.embeddings)):
            table.assign(tf.reshape(self._part(source, replica), table.shape))

    def _part(self, source: _Source, replica: int) -> tf.Tensor:
        """The part [K, n, D] of a replica."""
        size = self.classes_per_shard
        first = min(replica * size, self.num_classes)
        last = min(first + size, self.num_classes)
        if first == last:
            return tf.zeros([self.proxies_per_class, size, self.embedding_size])
        return tf.pad(source(first, last), [[0, 0], [0, size - (last - first)], [0, 0]])

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


class _WholeTable(tf.__internal__.tracking.Trackable):
    """What a checkpoint holds of sharded proxies: what it would hold of the variable of `Proxies`."""

    def __init__(self, proxies: ShardedProxies) -> None:
        self._proxies = proxies

    def _serialize_to_tensors(self) -> dict[str, tf.Tensor]:
        return {_VALUE: tf.reshape(self._proxies.whole(), [-1, self._proxies.embedding_size])}

    def _restore_from_tensors(self, restored: dict[str, tf.Tensor]) -> None:
        proxies = self._proxies
        shape = [proxies.proxies_per_class, proxies.num_classes, proxies.embedding_size]
        proxies.reset(tf.reshape(restored[_VALUE], shape))


_VALUE = "VARIABLE_VALUE"
