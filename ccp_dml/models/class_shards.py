"""How what is computed of the classes of each shard becomes one."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


class Shards:
    """All classes are here: one shard, and nothing to combine.

    What is computed from all classes is a maximum or a sum over them, or made of such. A formula that takes
    them in two stages, over the classes that are here and then by these methods, holds for one shard and for
    many. There are two kinds of values: those that every shard knows and that are equal on all (embeddings of
    the batch, results of `max` and `sum`), and those that differ. Each value of the first kind has to pass
    through `enter` on its way to the second.
    """

    @property
    def alone(self) -> bool:
        """Whether there is one shard only."""
        return True

    @property
    def first(self) -> bool | tf.Tensor:
        """Whether this is the first shard: bool scalar."""
        return True

    def max(self, values: tf.Tensor) -> tf.Tensor:
        """The largest of the values of all shards, elementwise, without gradient."""
        return tf.stop_gradient(values)

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """The sum of the values of all shards, elementwise."""
        return values

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """The rows of all shards, which may have different numbers of them, without gradient."""
        return values

    def enter(self, values: tf.Tensor) -> tf.Tensor:
        """The values, equal on all shards, for use in what differs: their gradient is that of all shards."""
        return values

    def sums(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        """`sum` of several scalars."""
        return values if self.alone else tf.unstack(self.sum(tf.stack(values)))

    def any(self, values: tf.Tensor) -> tf.Tensor:
        """Whether a value is true on any shard, elementwise."""
        return values if self.alone else self.sum(tf.cast(values, tf.float32)) > 0.0

    def once(self, values: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows that every shard knows, as rows that only the first one has.

        Args:
            values: float32 [n, ...].
            classes: int32 [n].

        Returns:
            The values, and the classes on the first shard, -1 (no class) on the others.
        """
        return self.enter(values), classes if self.alone else tf.where(self.first, classes, -1)


ALONE = Shards()


class ReplicaShards(Shards):
    """A shard on each replica of a `tf.distribute.Strategy`; the methods are called in replica context.

    The loss that follows from the combined values is computed on each replica, and is the same there. Hence
    the gradients: of a sum, each replica already has the whole gradient, so it is handed on as it is (that of
    TensorFlow's `all_reduce` would be added up once more); of a value that enters, each replica has the part
    of its own classes, and these are added up.
    """

    @property
    def alone(self) -> bool:
        """False."""
        return False

    @property
    def first(self) -> tf.Tensor:
        """Whether this is the first replica."""
        return tf.equal(self._index(), 0)

    def max(self, values: tf.Tensor) -> tf.Tensor:
        """As in the base class. There is no such reduction in `tf.distribute`: all values are gathered."""
        return tf.reduce_max(self._all_gather(tf.stop_gradient(values)[tf.newaxis]), axis=0)

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """As in the base class."""
        return _with_gradient(values, self._all_sum, _unchanged)

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """As in the base class."""
        return self._all_gather(tf.stop_gradient(values))

    def enter(self, values: tf.Tensor) -> tf.Tensor:
        """As in the base class."""
        return _with_gradient(values, tf.identity, self._all_sum)

    def _all_sum(self, values: tf.Tensor) -> tf.Tensor:
        return _context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _all_gather(self, values: tf.Tensor) -> tf.Tensor:
        return _context().all_gather(values, axis=0)

    def _index(self) -> tf.Tensor:
        return _context().replica_id_in_sync_group


def _with_gradient(
    values: tf.Tensor, of_values: Callable[[tf.Tensor], tf.Tensor], of_gradient: Callable[..., tf.Tensor]
) -> tf.Tensor:
    @tf.custom_gradient
    def apply(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
        return of_values(x), of_gradient

    return apply(values)


def _unchanged(gradient: tf.Tensor) -> tf.Tensor:
    return gradient


def _context() -> tf.distribute.ReplicaContext:
    context = tf.distribute.get_replica_context()
    if context is None:
        raise RuntimeError("classes are sharded over replicas; call this in a function given to strategy.run")
    return context
