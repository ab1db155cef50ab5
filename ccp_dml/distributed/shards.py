"""How what is computed of the classes of each shard becomes one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

from ccp_dml.distributed import replicas


class Shards:
    """All classes are here: one shard, and nothing to combine.

    What is computed from all classes is a maximum or a sum over them, or made of such. A formula that takes
    them in two stages, over the classes that are here and then by these methods, holds for one shard and for
    many. There are two kinds of values: those that every shard knows and that are equal on all (embeddings of
    the batch, results of `max` and `sum`), and those that differ. Each value of the first kind has to pass
    through `enter` on its way to the second.
    """

    @property
    def is_single(self) -> bool:
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
        return values if self.is_single else tf.unstack(self.sum(tf.stack(values)))

    def any(self, values: tf.Tensor) -> tf.Tensor:
        """Whether a value is true on any shard, elementwise."""
        return values if self.is_single else self.sum(tf.cast(values, tf.float32)) > 0.0

    def once(self, values: tf.Tensor, classes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Rows that every shard knows, as rows that only the first one has.

        Args:
            values: float32 [n, ...].
            classes: int32 [n].

        Returns:
            The values, and the classes on the first shard, -1 (no class) on the others.
        """
        return self.enter(values), classes if self.is_single else tf.where(self.first, classes, -1)


SINGLE_SHARD = Shards()


class ReplicaShards(Shards):
    """A shard on each replica of a `tf.distribute.Strategy`; the methods are called in replica context.

    The loss that follows from the combined values is computed on each replica, and is the same there. Hence
    the gradients: of a sum, each replica already has the whole gradient, so it is handed on as it is (that of
    TensorFlow's `all_reduce` would be added up once more); of a value that enters, each replica has the part
    of its own classes, and these are added up.
    """

    @property
    def is_single(self) -> bool:
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


# What divides a tensor of a checkpoint has no public name.


# (first class, class after the last) -> float32 [K, count, D].
Source = Callable[[int, int], tf.Tensor]

# The name of a variable's value in a checkpoint.
_VALUE = "VARIABLE_VALUE"
# Numbers of all replicas that are on a device at once when parts are put together: 64 MiB.
_GATHERED_AT_ONCE = 2**24


class TableShards:
    """Which replica holds which classes of a table, and how parts and wholes become one another.

    With n = ceil(C / R), replica r holds the classes from r n on, up to n of them. A variable in such parts
    is float32 [K * n, D] on each replica, rows of no class being zero. All methods are for outside of replica
    context.

    Attributes:
        size: n.
    """

    def __init__(self, strategy: tf.distribute.Strategy, shape: tuple[int, int, int]) -> None:
        """Divides tables of the shape (K, C, D) among the replicas of a strategy."""
        self._strategy, self._shape = strategy, shape
        self._count = strategy.num_replicas_in_sync
        self.size = replicas.items_per_replica(shape[1], self._count)
        # What the chief has gathered of a variable, while it writes a checkpoint.
        self._gathered: dict[int, tf.Tensor] = {}

    @property
    def numbers_here(self) -> list[int]:
        """Numbers of the replicas of this process."""
        strategy = self._strategy
        ids = strategy.experimental_distribute_values_from_function(
            lambda context: context.replica_id_in_sync_group
        )
        return list(strategy.experimental_local_results(ids))

    @property
    def all_here(self) -> bool:
        """Whether all replicas are of this process."""
        return len(self.numbers_here) == self._count

    @property
    def classes_here(self) -> list[range]:
        """The classes of each replica of this process."""
        return [self.classes_of(replica) for replica in self.numbers_here]

    def classes_of(self, replica: int) -> range:
        """The classes of a replica."""
        return replicas.items_of(self._shape[1], replica, self._count)

    def local(self, variable: tf.Variable) -> list[tf.Tensor]:
        """What this process has of a variable, float32 [K, n, D] for each of its replicas."""
        (per_class, _, width), values = self._shape, self._strategy.experimental_local_results(variable)
        return [tf.reshape(value, [per_class, self.size, width]) for value in values]

    def fill(self, variable: tf.Variable, source: Source) -> None:
        """Gives each replica of this process the part of its classes."""
        per_class, _, width = self._shape
        values = self._strategy.experimental_local_results(variable)
        for classes, value in zip(self.classes_here, values):
            part = tf.zeros([per_class, self.size, width])
            if classes:
                beyond = [[0, 0], [0, self.size - len(classes)], [0, 0]]
                part = tf.pad(source(classes.start, classes.stop), beyond)
            value.assign(tf.reshape(part, value.shape))

    def whole(self, variable: tf.Variable) -> tf.Tensor:
        """All of a variable in the memory of the host, [K, C, D]; every worker has to take part."""
        with tf.device("CPU:0"):
            if self.all_here:
                return tf.concat(self.local(variable), axis=1)[:, : self._shape[1]]
            return tf.convert_to_tensor(self._put_together(variable, keep=True))

    def distributed(self, values: Sequence[tf.Tensor]) -> Any:
        """Values of the replicas of this process, as functions of a strategy take them."""
        of_replica = dict(zip(self.numbers_here, values))
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: of_replica[context.replica_id_in_sync_group]
        )

    @contextlib.contextmanager
    def gathered(self, variable: tf.Variable) -> Iterator[None]:
        """Where a checkpoint of the chief holds all of a variable; every worker has to enter."""
        if self.all_here:
            yield
            return
        is_chief = 0 in self.numbers_here
        found = self._put_together(variable, keep=is_chief)
        if is_chief:
            with tf.device("CPU:0"):
                self._gathered[id(variable)] = tf.reshape(found, [-1, self._shape[2]])
        try:
            yield
        finally:
            self._gathered.pop(id(variable), None)

    def saveables(self, variable: tf.Variable) -> dict[str, Callable[[str], SaveableObject]]:
        """How a checkpoint writes and reads a variable: part by part.

        In the file they are slices of one tensor [K * C, D], which any other process reads in parts of its
        own, or as a whole. Of several processes none has all parts, but the chief within `gathered`.
        """
        return {_VALUE: lambda name: _Slices(self, variable, name)}

    def slices(self, variable: tf.Variable) -> list[tuple[str, tf.Tensor]]:
        """What this process has of a checkpoint's tensor, in the memory of the host: places and values."""
        if id(variable) in self._gathered:
            return [("", self._gathered[id(variable)])]
        with tf.device("CPU:0"):
            found = [
                (place, tf.identity(part[number, : len(classes)]))
                for classes, part in zip(self.classes_here, self.local(variable))
                for number, place in enumerate(self._places(classes))
            ]
            # TensorFlow expects something of every variable, also where all replicas are without a class.
            return found or [(self._place(0, 1), tf.zeros([1, self._shape[2]]))]

    def put_slices(self, variable: tf.Variable, values: Sequence[tf.Tensor]) -> None:
        """Takes values in the places of `slices`."""
        per_class, following = self._shape[0], iter(values)
        self.fill(variable, lambda *_: tf.stack([next(following) for _ in range(per_class)]))

    def _places(self, classes: range) -> list[str]:
        """Where the proxies of classes are in the file, for k = 0, …, K - 1."""
        per_class, total, _ = self._shape
        firsts = range(classes.start, classes.start + per_class * total, total) if classes else ()
        return [self._place(first, len(classes)) for first in firsts]

    def _place(self, first: int, count: int) -> str:
        per_class, total, width = self._shape
        return f"{per_class * total} {width} {first},{count}:-"

    def _put_together(self, variable: tf.Variable, *, keep: bool) -> npt.NDArray[np.float32] | None:
        """All of a variable, of several workers; those that do not keep it get None.

        Block by block: what is on a device at a time does not grow with C.
        """
        per_class, total, width = self._shape
        count = min(self.size, max(1, _GATHERED_AT_ONCE // (self._count * per_class * width)))
        whole = np.empty([per_class, total, width], np.float32) if keep else None
        parts = self.local(variable)
        for start in range(0, self.size, count):
            # The last block overlaps the one before, so that all have one shape and one trace.
            first = min(start, self.size - count)
            blocks = self._exchange(self.distributed([part[:, first : first + count] for part in parts]))
            if whole is not None:
                for replica, block in enumerate(blocks.numpy()):
                    classes = self.classes_of(replica)[first : first + count]
                    whole[:, classes.start : classes.stop] = block[:, : len(classes)]
        return whole

    @functools.cached_property
    def _exchange(self) -> Any:
        """A function of a [K, m, D] on each replica, that gives those of all, [R, K, m, D]."""
        strategy = self._strategy

        def on_replica(block: tf.Tensor) -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(block[tf.newaxis], axis=0)

        @tf.function
        def exchange(blocks: Any) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(on_replica, args=(blocks,)))[0]

        return exchange


class _Slices(SaveableObject):
    """The slices of a checkpoint's tensor that a process has."""

    def __init__(self, parts: TableShards, variable: tf.Variable, name: str) -> None:
        specs = [SaveSpec(value, place, name) for place, value in parts.slices(variable)]
        super().__init__(variable, specs, name)
        self._parts = parts

    def restore(self, restored_tensors: Sequence[tf.Tensor], restored_shapes: Any) -> tf.Operation:
        """Called by TensorFlow with the values that were read."""
        self._parts.put_slices(self.op, restored_tensors)
        return tf.no_op()
