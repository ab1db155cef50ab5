"""What the replicas of a `tf.distribute` strategy exchange, and what each of them keeps for itself.

A global batch is cut by position: of B rows, replica r of R holds the rows r * B / R … (r + 1) * B / R - 1.
Without a strategy there is one replica, and every function here returns what it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import tensorflow as tf

_TABLE = "_table_in_parts"


class ShardedTable(Protocol):
    """What knows of variables that have a part on each replica how the parts make a whole."""

    def checkpoint_as_table(self, variables: Iterable[tf.Variable]) -> None:
        """Lets checkpoints hold the whole of those variables that are in such parts, too."""

    def gathered(self, variable: tf.Variable) -> contextlib.AbstractContextManager[None]:
        """Where a checkpoint that the chief writes holds the whole of a variable; every worker enters."""

    def like(self, name: str) -> tf.Variable:
        """A variable of zeros in the same parts, not trained, of which checkpoints hold the whole."""


def count() -> int:
    """R, the number of replicas of the strategy in scope."""
    return int(tf.distribute.get_strategy().num_replicas_in_sync)


def items_per_replica(total: int, replicas: int) -> int:
    """How many of a number of things a replica has, at most: ceil(total / R)."""
    return -(-total // replicas)


def items_of(total: int, replica: int, replicas: int) -> range:
    """Which of a number of things a replica has: contiguous, in their order, as far as there are any."""
    size = items_per_replica(total, replicas)
    return range(min(replica * size, total), min((replica + 1) * size, total))


def gather_rows(rows: tf.Tensor) -> tf.Tensor:
    """The rows of all replicas, in their order; to be called in replica context.

    Each replica puts its rows into their places among zeros, and these are summed: as fast as a gathering
    up to a factor of two, exact, and in the order of the replicas whatever that of the devices is.

    Args:
        rows: [B / R, ...], of a dtype that can be added; of the same shape on every replica.

    Returns:
        [B, ...], equal on every replica. No gradient goes through it.
    """
    replicas = count()
    if replicas == 1:
        return rows
    rows = tf.stop_gradient(rows)
    own = tf.equal(tf.range(replicas), _replica())
    own = tf.reshape(own, [replicas] + [1] * rows.shape.rank)
    placed = tf.where(own, rows[tf.newaxis], tf.zeros([], rows.dtype))
    gathered = sum_over_replicas([tf.reshape(placed, tf.concat([[-1], tf.shape(rows)[1:]], 0))])[0]
    size = None if rows.shape[0] is None else replicas * rows.shape[0]
    return tf.ensure_shape(gathered, [size, *rows.shape[1:]])


def local_rows(rows: tf.Tensor) -> tf.Tensor:
    """The part of [B, ...] that belongs to the replica, [B / R, ...]; to be called in replica context."""
    replicas = count()
    if replicas == 1:
        return rows
    return tf.gather(tf.reshape(rows, tf.concat([[replicas, -1], tf.shape(rows)[1:]], 0)), _replica())


def sum_over_replicas(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The sums of tensors over the replicas, equal on each; to be called in replica context."""
    context = tf.distribute.get_replica_context()
    if context.num_replicas_in_sync == 1 or not tensors:
        return list(tensors)
    return list(context.all_reduce(tf.distribute.ReduceOp.SUM, list(tensors)))


def first_local(value: Any) -> Any:
    """The value of the first replica of this process, of what `Strategy.run` returned."""
    strategy = tf.distribute.get_strategy()
    return tf.nest.map_structure(lambda part: strategy.experimental_local_results(part)[0], value)


@contextlib.contextmanager
def scope(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """The scope of a strategy, in which the statistics of batch normalisation are `per_replica_state`, too.

    Keras would take their mean over the replicas wherever they are read, an exchange between all workers,
    though every replica has the same ones.
    """

    def create(next_creator: Callable[..., tf.Variable], **arguments: Any) -> tf.Variable:
        if arguments.get("synchronization") == tf.VariableSynchronization.ON_READ:
            arguments["aggregation"] = tf.VariableAggregation.ONLY_FIRST_REPLICA
        return next_creator(**arguments)

    with strategy.scope(), tf.variable_creator_scope(create):
        yield


def per_replica_state(value: Any, dtype: tf.DType | None = None, name: str | None = None) -> tf.Variable:
    """A variable, not trained, of which each replica has and changes a copy of its own.

    The copies stay equal if every replica computes the same from the global batch. A checkpoint holds that of
    the first replica and gives it to all.

    Args:
        value: initial value.
        dtype: of the variable; None for that of the value.
        name: of the variable.
    """
    return tf.Variable(
        value,
        trainable=False,
        dtype=dtype,
        name=name,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )


def write_rows(variable: tf.Variable, places: tf.Tensor, rows: tf.Tensor) -> None:
    """Writes rows of `per_replica_state`: [n, ...] to `places`, int64 [n, 1], all different."""
    # The method of the variable is not there for one that has a copy on each of several replicas.
    tf.raw_ops.ResourceScatterNdUpdate(ref=variable.handle, indices=places, updates=rows)


def mark_sharded(variable: tf.Variable, table: ShardedTable) -> None:
    """Says of a variable that what each replica has of it is another part, and no copy.

    Nothing of such a variable may be divided among replicas or summed over them, but for its norm.
    """
    setattr(variable, _TABLE, table)


def table_of(variable: Any) -> ShardedTable | None:
    """What knows the parts of a variable; None if all replicas have the same values."""
    return getattr(variable, _TABLE, None)


@contextlib.contextmanager
def gathered_tables(root: tf.train.Checkpoint) -> Iterator[None]:
    """Context in which a checkpoint that the chief writes holds the whole of sharded variables.

    Every worker has to enter, and only the chief to write: of all other variables it has the whole, as
    `per_replica_state` and the weights are read from its first replica. The chief holds all those tables at
    once in the memory of its host, the others a block of one at a time.

    Args:
        root: the checkpoint.
    """
    found: dict[int, tf.Variable] = {}
    for node in tf.train.TrackableView(root).descendants():
        # The moments of these optimizers are in a checkpoint without being anyone's children.
        is_legacy = isinstance(node, tf.keras.optimizers.legacy.Optimizer)
        found.update((id(variable), variable) for variable in (node.variables() if is_legacy else [node]))
    with contextlib.ExitStack() as stack:
        for variable in found.values():
            table = table_of(variable)
            if table is not None:
                stack.enter_context(table.gathered(variable))
        yield


def assign(variable: tf.Variable, value: tf.Tensor | tf.Variable) -> None:
    """Gives a variable a value, outside of the replicas.

    If the variable is in parts, the value has to be a variable that is in the same ones.
    """
    if table_of(variable) is None:
        variable.assign(value)
        return
    parts = variable.distribute_strategy.experimental_local_results
    for mine, other in zip(parts(variable), parts(value)):
        mine.assign(other)


def global_norm(tensors: Sequence[tf.Tensor | None], variables: Sequence[tf.Variable]) -> tf.Tensor:
    """The joint Euclidean norm of values that belong to variables, in replica context.

    Those of variables in parts count on all replicas, the others, which are equal on each, once.

    Args:
        tensors: one or None for each variable.
        variables: the variables.

    Returns:
        Float scalar, equal on every replica.
    """
    found = [(tensor, table_of(variable)) for tensor, variable in zip(tensors, variables)]
    whole = [tensor for tensor, table in found if tensor is not None and table is None]
    parts = [tensor for tensor, table in found if tensor is not None and table is not None]
    squares = sum_over_replicas([tf.reduce_sum(tf.square(part)) for part in parts])
    return tf.linalg.global_norm([*whole, *map(tf.sqrt, squares)])


def _replica() -> Any:
    return tf.distribute.get_replica_context().replica_id_in_sync_group


class WeightSnapshot(tf.Module):
    """Non-trainable copies of variables, all zero until the first `take`.

    The copy of a variable in parts (`distributed.replicas`) is in the same parts, beside the variable's own.

    Attributes:
        values: the copies, in the order of the variables.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, on_host: bool = True, name: str = "snapshot"):
        """Makes the copies.

        Args:
            variables: what to copy; any shapes and dtypes.
            on_host: keep the copies in host memory, where they cost an accelerator nothing. False for copies
                that are read in every training step.
            name: name of the module.
        """
        super().__init__(name=name)
        self._variables = list(variables)
        with tf.device("CPU:0") if on_host else _beside(self._variables):
            self.values = [_zeros_like(variable, f"{name}_{i}") for i, variable in enumerate(self._variables)]

    def take(self) -> None:
        """Copies the variables as they are now."""
        self.copy_from(self._variables)

    def copy_from(self, values: Sequence[tf.Tensor | tf.Variable]) -> None:
        """Stores other values of the same shapes and parts instead of the variables' own."""
        for copy, value in zip(self.values, values):
            assign(copy, value)

    def put_back(self) -> None:
        """Gives the variables the stored values."""
        for variable, copy in zip(self._variables, self.values):
            assign(variable, copy)


def _zeros_like(variable: tf.Variable, name: str) -> tf.Variable:
    table = table_of(variable)
    if table is not None:
        return table.like(name)
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)


def _beside(variables: Sequence[tf.Variable]) -> contextlib.AbstractContextManager[object]:
    """Where copies of variables come to be on all replicas that have these."""
    strategies = (getattr(variable, "distribute_strategy", None) for variable in variables)
    strategy = next((found for found in strategies if found is not None), None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()
