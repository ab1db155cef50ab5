"""Class proxies that are sharded: each replica holds the proxies of some classes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.distributed.shards import ReplicaShards
from ccp_dml.distributed.tables import ShardedTable
from ccp_dml.models.proxies import Proxies

# Number of classes whose first proxies are drawn at once, so that a draw is independent of the replicas.
_CLASSES_PER_DRAW = 2**14
# Standard deviation of a standard normal distribution that is truncated at 2.
_TRUNCATED_NORMAL = 0.8796256610342398


@tf.keras.utils.register_keras_serializable("ccp_dml")
class ShardedProxies(Proxies):
    """K trainable proxies for each of C classes, the classes spread over the R replicas of a strategy.

    The strategy is the one in scope when the layer is created. With n = ceil(C / R), replica r holds the
    classes from r n on, at most n of them. Where there are fewer, the remaining rows of its table have no
    class: their label is -1 and they are ignored. In replica context `embeddings`, `labels` and `by_class`
    are those of the replica, and a gradient for `embeddings` is complete: do not sum it over replicas.

    A checkpoint holds the table of all classes, which `Proxies` and any number of replicas can read. Several
    workers have to write it within `tables.gathered_tables`; otherwise it holds the shards of one worker.

    Attributes:
        embeddings: float32 variable, [n * K, D] on each replica, with different values on each. Outside of
            replica context it has the values of the first replica; `whole` returns all.
        classes_per_shard: n.
        seed: seed of the first proxies.
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
        """Creates the proxies, with the distribution that `he_normal` has for the table of all classes.

        Args:
            num_classes: number of classes C.
            proxies_per_class: number of proxies K of each class.
            embedding_size: number of dimensions D.
            learning_rate_multiplier: factor on the learning rate of the proxies.
            seed: seed of the first values, which do not depend on the number of replicas.
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
        """Class of each row of `embeddings` on this replica: int32 [n * K], -1 for rows without a class."""
        if self.shards.is_single:
            return super().labels
        classes = self._first_class() + tf.range(self.classes_per_shard, dtype=tf.int32)
        return tf.tile(tf.where(classes < self.num_classes, classes, -1), [self.proxies_per_class])

    def of_classes(self, classes: tf.Tensor) -> tf.Tensor:
        """Looks up the proxies of classes int32 [B] on all replicas: float32 [K, B, D]."""
        if self.shards.is_single:
            return super().of_classes(classes)
        places = classes - self._first_class()
        here = (places >= 0) & (places < self.classes_per_shard)
        rows = tf.gather(self.by_class, tf.where(here, places, 0), axis=1)
        return self.shards.sum(tf.where(here[:, tf.newaxis], rows, 0.0))

    @property
    def by_class(self) -> tf.Tensor:
        """The proxies of this replica as float32 [K, n, D]; in replica context."""
        self._check_context()
        return super().by_class

    def reset(self, embeddings: tf.Tensor) -> None:
        """Replaces all proxies; outside of replica context. See the base class."""
        embeddings = self._checked(embeddings)
        self._table.fill(self.embeddings, lambda first, last: embeddings[:, first:last])

    @property
    def classes_here(self) -> list[range]:
        """The classes of each shard of this process, one per replica."""
        return self._table.local_classes

    @property
    def all_here(self) -> bool:
        """True if this process holds all classes."""
        return self._table.is_local

    def shards_of(self, variable: tf.Variable) -> list[tf.Tensor]:
        """Splits the table, or a copy of it, into shards, without rows that have no class.

        Outside of replica context; see the base class.
        """
        local = zip(self._table.local_shards(variable), self.classes_here)
        return [shard[:, : len(classes)] for shard, classes in local]

    def rows_of(self, variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
        """Gathers rows int64 [n] of the table, or of a copy of it: float32 [n, D].

        Outside of replica context, on all workers at once.
        """
        if self.shards.is_single:
            return super().rows_of(variable, rows)
        classes, numbers = np.asarray(rows % self.num_classes), np.asarray(rows // self.num_classes)

        def rows_of_replica(replica: int, shard: tf.Tensor) -> tf.Tensor:
            places = classes - replica * self.classes_per_shard
            here = (places >= 0) & (places < self.classes_per_shard)
            found = tf.gather(shard, numbers * self.classes_per_shard + np.where(here, places, 0))
            return tf.where(here[:, np.newaxis], found, 0.0)

        shards = zip(self._table.local_replica_ids, self._strategy.experimental_local_results(variable))
        found = [rows_of_replica(replica, shard) for replica, shard in shards]
        return self._strategy.reduce("SUM", self._table.distributed(found), axis=None)

    def reset_shards(self, shards: Sequence[tf.Tensor]) -> None:
        """Replaces the proxies of each shard of this process; outside of replica context."""
        of_first = {classes.start: shard for classes, shard in zip(self.classes_here, shards)}
        self._table.fill(self.embeddings, lambda first, last: of_first[first])

    def whole(self) -> tf.Tensor:
        """Returns all proxies, float32 [K, C, D]; outside of replica context, on all workers at once."""
        return self._table.gather(self.embeddings)

    def checkpoint_as_table(self, variables: Iterable[tf.Variable]) -> None:
        """Makes checkpoints hold all shards of further variables that are sharded like `embeddings`.

        An optimizer's moments of the proxies are an example. A plain checkpoint would hold those of the first
        replica and restore them on all.

        Args:
            variables: all variables of an optimizer that updates only `embeddings`, after it is built;
                variables with another shape than `embeddings` are ignored.
        """
        self._table.register(variables)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer, which do not include the values of the proxies."""
        config = {**super().get_config(), "seed": self.seed}
        del config["initializer"]
        return config

    def _make_table(self) -> tf.Variable:
        # A layer's `add_weight` refuses to train a variable that differs between replicas.
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
            raise RuntimeError(
                "the proxies are sharded: each replica has classes of its own; use them in `strategy.run`"
            )

    def _first_values(self, first: int, last: int) -> tf.Tensor:
        size = _CLASSES_PER_DRAW
        deviation = math.sqrt(2.0 / (self.num_classes * self.proxies_per_class)) / _TRUNCATED_NORMAL
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
    """Creates the proxies that a loss trains, sharded over the replicas of the strategy in scope or not."""
    sizes = num_classes, proxies_per_class, embedding_size
    made = (
        ShardedProxies(*sizes, learning_rate_multiplier, seed)
        if sharded
        else Proxies(*sizes, learning_rate_multiplier)
    )
    made.saved_by_loss = True
    return made
