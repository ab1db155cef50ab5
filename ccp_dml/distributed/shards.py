"""Combination of values that a loss computes for the classes of each shard of its proxies."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf


class Shards:
    """A single shard, which holds all classes: nothing to combine.

    A loss computes sums and maxima over the classes of a shard, and combines them over all shards by the
    methods below. The same formula then holds for one shard and for many. A value is either *common*, known
    to every shard and equal on all (the embeddings of the batch, the results of `max` and `sum`), or
    different on each. A common value has to pass through `enter` before it is combined with values that
    differ.
    """

    @property
    def is_single(self) -> bool:
        """True if there is only one shard."""
        return True

    @property
    def first(self) -> bool | tf.Tensor:
        """True on the first shard: bool scalar."""
        return True

    def max(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the elementwise maximum over all shards, without gradient."""
        return tf.stop_gradient(values)

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the elementwise sum over all shards."""
        return values

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """Returns the rows of all shards, which may differ in number, without gradient."""
        return values

    def enter(self, values: tf.Tensor) -> tf.Tensor:
        """Returns common values for use with values that differ; sums their gradient over all shards."""
        return values

    def sums(self, values: list[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the sums of several scalars."""
        return values if self.is_single else tf.unstack(self.sum(tf.stack(values)))

    def any(self, values: tf.Tensor) -> tf.Tensor:
        """Returns true, elementwise, if a value is true on any shard."""
        return values if self.is_single else self.sum(tf.cast(values, tf.float32)) > 0.0

    def once(self, values: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Assigns common rows to the first shard.

        Args:
            values: float32 [n, ...].
            classes: int32 [n].

        Returns:
            The values, and the classes: as given on the first shard, -1 (no class) on all others.
        """
        return self.enter(values), classes if self.is_single else tf.where(self.first, classes, -1)


SINGLE_SHARD = Shards()


class ReplicaShards(Shards):
    """One shard on each replica of a `tf.distribute.Strategy`; methods are called in replica context.

    Each replica computes the same loss from the combined values. Hence the gradients: of a `sum`, each
    replica already has the whole gradient, which is passed on unchanged (TensorFlow's gradient of
    `all_reduce` would sum it once more); of a value that enters, each replica has the part of its classes,
    and the parts are summed.
    """

    @property
    def is_single(self) -> bool:
        """False."""
        return False

    @property
    def first(self) -> tf.Tensor:
        """True on the first replica."""
        return tf.equal(self._index(), 0)

    def max(self, values: tf.Tensor) -> tf.Tensor:
        """See the base class. As `tf.distribute` has no maximum, all values are gathered."""
        return tf.reduce_max(self._all_gather(tf.stop_gradient(values)[tf.newaxis]), axis=0)

    def sum(self, values: tf.Tensor) -> tf.Tensor:
        """See the base class."""
        return _with_gradient(values, self._all_sum, _unchanged)

    def gather(self, values: tf.Tensor) -> tf.Tensor:
        """See the base class."""
        return self._all_gather(tf.stop_gradient(values))

    def enter(self, values: tf.Tensor) -> tf.Tensor:
        """See the base class."""
        return _with_gradient(values, tf.identity, self._all_sum)

    # Tests and benchmarks override the exchange.

    def _all_sum(self, values: tf.Tensor) -> tf.Tensor:
        return _context().all_reduce(tf.distribute.ReduceOp.SUM, values)

    def _all_gather(self, values: tf.Tensor) -> tf.Tensor:
        return _context().all_gather(values, axis=0)

    def _index(self) -> tf.Tensor:
        return _context().replica_id_in_sync_group


def _with_gradient(
    values: tf.Tensor, forward: Callable[[tf.Tensor], tf.Tensor], backward: Callable[..., tf.Tensor]
) -> tf.Tensor:
    @tf.custom_gradient
    def apply(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., tf.Tensor]]:
        return forward(x), backward

    return apply(values)


def _unchanged(gradient: tf.Tensor) -> tf.Tensor:
    return gradient


def _context() -> tf.distribute.ReplicaContext:
    context = tf.distribute.get_replica_context()
    if context is None:
        raise RuntimeError("classes are sharded over replicas; call this in a function given to strategy.run")
    return context
