"""Tables of proxies whose classes are divided among the replicas, and their checkpoints.

A variable of a sharded table holds other values on every replica. So it must not be summed over replicas, and
a checkpoint has to gather it. `table_of` tells such variables from all others.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# TensorFlow has no public name for an object that writes slices of a tensor to a checkpoint.
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

from ccp_dml.distributed import replicas

# (first class, class after the last) -> float32 [K, count, D]
Source = Callable[[int, int], tf.Tensor]

_TABLE = "_sharded_table"
# Name of a variable's value in a checkpoint.
_VALUE = "VARIABLE_VALUE"
# Most numbers of all replicas that are on a device at once while a table is gathered: 64 MiB.
_GATHERED_AT_ONCE = 2**24


class ShardedTable:
    """The division of a table [K, C, D] among the replicas of a strategy, by class.

    With n = ceil(C / R), replica r holds the classes from r * n on, at most n of them. A variable of the
    table is float32 [K * n, D] on each replica; rows beyond the last class are zero. All methods are called
    outside of replica context.

    Attributes:
        classes_per_shard: n.
    """

    def __init__(self, strategy: tf.distribute.Strategy, shape: tuple[int, int, int]) -> None:
        """Divides tables of the shape (K, C, D)."""
        self._strategy, self._shape = strategy, shape
        self._replicas = strategy.num_replicas_in_sync
        self.classes_per_shard = replicas.items_per_replica(shape[1], self._replicas)
        # Whole variables, by id, while the chief writes a checkpoint.
        self._gathered: dict[int, tf.Tensor] = {}

    @property
    def local_replica_ids(self) -> list[int]:
        """Numbers of the replicas of this worker."""
        strategy = self._strategy
        ids = strategy.experimental_distribute_values_from_function(
            lambda context: context.replica_id_in_sync_group
        )
        return list(strategy.experimental_local_results(ids))

    @property
    def is_local(self) -> bool:
        """True if all shards are on this worker."""
        return len(self.local_replica_ids) == self._replicas

    @property
    def local_classes(self) -> list[range]:
        """Classes of each local shard."""
        return [self._classes_of(replica) for replica in self.local_replica_ids]

    def local_shards(self, variable: tf.Variable) -> list[tf.Tensor]:
        """Returns the local shards of a variable, float32 [K, n, D] each."""
        (per_class, _, width), values = self._shape, self._strategy.experimental_local_results(variable)
        return [tf.reshape(value, [per_class, self.classes_per_shard, width]) for value in values]

    def fill(self, variable: tf.Variable, source: Source) -> None:
        """Assigns to each local shard of a variable the values of its classes."""
        per_class, _, width = self._shape
        values = self._strategy.experimental_local_results(variable)
        for classes, value in zip(self.local_classes, values):
            shard = tf.zeros([per_class, self.classes_per_shard, width])
            if classes:
                padding = [[0, 0], [0, self.classes_per_shard - len(classes)], [0, 0]]
                shard = tf.pad(source(classes.start, classes.stop), padding)
            value.assign(tf.reshape(shard, value.shape))

    def gather(self, variable: tf.Variable) -> tf.Tensor:
        """Gathers a variable in host memory, float32 [K, C, D]; all workers have to call it."""
        with tf.device("CPU:0"):
            if self.is_local:
                return tf.concat(self.local_shards(variable), axis=1)[:, : self._shape[1]]
            return tf.convert_to_tensor(self._gather_from_workers(variable, keep=True))

    def distributed(self, values: Sequence[tf.Tensor]) -> Any:
        """Returns values of the local replicas in the form that `Strategy.run` and `reduce` take."""
        of_replica = dict(zip(self.local_replica_ids, values))
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: of_replica[context.replica_id_in_sync_group]
        )

    def zeros(self, name: str) -> tf.Variable:
        """Creates a variable of the table that is zero and not trained."""
        per_class, _, width = self._shape
        with self._strategy.scope():
            zeros = tf.zeros([per_class * self.classes_per_shard, width])
            variable = replicas.per_replica_state(zeros, name=name)
        self.register([variable])
        return variable

    def register(self, variables: Iterable[tf.Variable]) -> None:
        """Marks variables as sharded like this table, and lets checkpoints hold all of their values.

        Without this, a checkpoint would hold the shard of the first replica and restore it on all.

        Args:
            variables: variables of the table, such as the moments that an optimizer keeps of it; variables of
                another shape are ignored.
        """
        if self._replicas == 1:
            return
        per_class, _, width = self._shape
        for variable in variables:
            if variable.shape == (per_class * self.classes_per_shard, width):
                # TensorFlow looks for this attribute before it asks the class of the variable.
                variable._gather_saveables_for_checkpoint = functools.partial(self._saveables, variable)
                setattr(variable, _TABLE, self)

    @contextlib.contextmanager
    def gathered(self, variable: tf.Variable) -> Iterator[None]:
        """Context in which a checkpoint of the chief holds all of a variable; all workers have to enter."""
        if self.is_local:
            yield
            return
        is_chief = 0 in self.local_replica_ids
        values = self._gather_from_workers(variable, keep=is_chief)
        if is_chief:
            with tf.device("CPU:0"):
                self._gathered[id(variable)] = tf.reshape(values, [-1, self._shape[2]])
        try:
            yield
        finally:
            self._gathered.pop(id(variable), None)

    def slices(self, variable: tf.Variable) -> list[tuple[str, tf.Tensor]]:
        """Returns places and values, in host memory, of what this worker writes of a variable.

        A place is a slice of one tensor [K * C, D], of which any other process reads what it needs. Of
        several workers only the chief has all of it, within `gathered`.
        """
        if id(variable) in self._gathered:
            return [("", self._gathered[id(variable)])]
        with tf.device("CPU:0"):
            found = [
                (place, tf.identity(shard[number, : len(classes)]))
                for classes, shard in zip(self.local_classes, self.local_shards(variable))
                for number, place in enumerate(self._places(classes))
            ]
            # TensorFlow requires at least one slice, even if no local replica has a class.
            return found or [(self._place(0, 1), tf.zeros([1, self._shape[2]]))]

    def assign_slices(self, variable: tf.Variable, values: Sequence[tf.Tensor]) -> None:
        """Assigns values to the places of `slices`."""
        per_class, following = self._shape[0], iter(values)
        self.fill(variable, lambda *_: tf.stack([next(following) for _ in range(per_class)]))

    def _classes_of(self, replica: int) -> range:
        return replicas.items_of(self._shape[1], replica, self._replicas)

    def _saveables(self, variable: tf.Variable) -> dict[str, Callable[[str], SaveableObject]]:
        return {_VALUE: lambda name: _Slices(self, variable, name)}

    def _places(self, classes: range) -> list[str]:
        """Places of the proxies of classes in the file, for k = 0, …, K - 1."""
        per_class, total, _ = self._shape
        firsts = range(classes.start, classes.start + per_class * total, total) if classes else ()
        return [self._place(first, len(classes)) for first in firsts]

    def _place(self, first: int, count: int) -> str:
        per_class, total, width = self._shape
        return f"{per_class * total} {width} {first},{count}:-"

    def _gather_from_workers(self, variable: tf.Variable, *, keep: bool) -> npt.NDArray[np.float32] | None:
        """Gathers a variable [K, C, D] of several workers; returns None where it is not kept.

        Block by block, so that the memory on a device does not grow with C.
        """
        per_class, total, width = self._shape
        count = min(self.classes_per_shard, max(1, _GATHERED_AT_ONCE // (self._replicas * per_class * width)))
        gathered = np.empty([per_class, total, width], np.float32) if keep else None
        shards = self.local_shards(variable)
        for start in range(0, self.classes_per_shard, count):
            # The last block overlaps the one before, so that all have one shape and one trace.
            first = min(start, self.classes_per_shard - count)
            blocks = self._exchange(self.distributed([shard[:, first : first + count] for shard in shards]))
            if gathered is not None:
                for replica, block in enumerate(blocks.numpy()):
                    classes = self._classes_of(replica)[first : first + count]
                    gathered[:, classes.start : classes.stop] = block[:, : len(classes)]
        return gathered

    @functools.cached_property
    def _exchange(self) -> Any:
        """A function that gathers a block [K, m, D] of each replica: [R, K, m, D]."""
        strategy = self._strategy

        def on_replica(block: tf.Tensor) -> tf.Tensor:
            return tf.distribute.get_replica_context().all_gather(block[tf.newaxis], axis=0)

        @tf.function
        def exchange(blocks: Any) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(on_replica, args=(blocks,)))[0]

        return exchange


class _Slices(SaveableObject):
    """The slices of a checkpoint's tensor that a worker writes and reads."""

    def __init__(self, table: ShardedTable, variable: tf.Variable, name: str) -> None:
        specs = [SaveSpec(value, place, name) for place, value in table.slices(variable)]
        super().__init__(variable, specs, name)
        self._table = table

    def restore(self, restored_tensors: Sequence[tf.Tensor], restored_shapes: Any) -> tf.Operation:
        """Called by TensorFlow with the values that were read."""
        self._table.assign_slices(self.op, restored_tensors)
        return tf.no_op()


def table_of(variable: Any) -> ShardedTable | None:
    """Returns the sharded table that a variable belongs to; None if all replicas hold the same values."""
    return getattr(variable, _TABLE, None)


@contextlib.contextmanager
def gathered_tables(root: tf.train.Checkpoint) -> Iterator[None]:
    """Context in which a checkpoint that the chief writes holds all values of sharded variables.

    All workers have to enter, and only the chief has to write. Of all other variables the chief has all
    values anyway. The chief holds all sharded variables together in host memory, the other workers one block
    at a time.

    Args:
        root: the checkpoint.
    """
    found: dict[int, tf.Variable] = {}
    for node in tf.train.TrackableView(root).descendants():
        # A checkpoint holds the moments of these optimizers, but they are not descendants of the root.
        is_legacy = isinstance(node, tf.keras.optimizers.legacy.Optimizer)
        found.update((id(variable), variable) for variable in (node.variables() if is_legacy else [node]))
    with contextlib.ExitStack() as stack:
        for variable in found.values():
            table = table_of(variable)
            if table is not None:
                stack.enter_context(table.gathered(variable))
        yield


def global_norm(tensors: Sequence[tf.Tensor | None], variables: Sequence[tf.Variable]) -> tf.Tensor:
    """Computes the joint Euclidean norm of tensors that belong to variables, in replica context.

    Tensors of sharded variables are summed over the replicas; all others are equal on each and count once.

    Args:
        tensors: a tensor or None for each variable.
        variables: the variables.

    Returns:
        Float scalar, equal on every replica.
    """
    present = [(tensor, table_of(variable)) for tensor, variable in zip(tensors, variables)]
    equal = [tensor for tensor, table in present if tensor is not None and table is None]
    sharded = [tensor for tensor, table in present if tensor is not None and table is not None]
    squares = replicas.sum_over_replicas([tf.reduce_sum(tf.square(tensor)) for tensor in sharded])
    return tf.linalg.global_norm([*equal, *map(tf.sqrt, squares)])
