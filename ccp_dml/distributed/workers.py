"""The worker processes of a `tf.distribute` strategy: division of work and exchange of values.

Every exchange is a sum over the replicas, in which each worker has its values among zeros. The result is
exact and in the order of the workers. All workers have to call the same methods in the same order.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.distributed import replicas

T = TypeVar("T")
Array = npt.NDArray[Any]


class Workers:
    """The worker processes of a strategy; a single process exchanges nothing.

    Attributes:
        strategy: the strategy; None for one device.
        count: number of workers W.
        index: number of this worker, from 0.
        replicas_per_worker: number of replicas of each worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, *, divides_work: bool = True) -> None:
        """Takes the strategy that a run trains with.

        Args:
            strategy: the strategy; None for one device.
            divides_work: divide evaluation, pools and search among the replicas; if False, each process does
                this work on one device.
        """
        self.strategy = strategy
        self.count, self.index, self.replicas_per_worker = 1, 0, 1
        if strategy is not None and divides_work:
            ids = strategy.experimental_distribute_values_from_function(
                lambda context: context.replica_id_in_sync_group
            )
            local_ids = strategy.experimental_local_results(ids)
            self.replicas_per_worker = len(local_ids)
            self.count = strategy.num_replicas_in_sync // self.replicas_per_worker
            self.index = int(local_ids[0]) // self.replicas_per_worker
        self._sum = functools.cache(self._make_sum)

    @property
    def is_chief(self) -> bool:
        """True for worker 0, which alone writes files."""
        return self.index == 0

    def scope(self) -> contextlib.AbstractContextManager[None]:
        """Returns the context in which model, loss and optimizer are created."""
        return contextlib.nullcontext() if self.strategy is None else replicas.scope(self.strategy)

    def local_slice(self, total: int) -> slice:
        """Returns the items of `total` that this worker has; contiguous, in the order of the workers.

        Each replica has ceil(total / R) items, as far as there are any.
        """
        first, total_replicas = self.index * self.replicas_per_worker, self.count * self.replicas_per_worker
        last = first + self.replicas_per_worker - 1
        start, stop = (replicas.items_of(total, number, total_replicas) for number in (first, last))
        return slice(start.start, stop.stop)

    def gather(self, values: Array, axis: int = 0) -> Array:
        """Concatenates the arrays of all workers, in their order.

        Args:
            values: float32, float64, int32 or int64. The size along `axis` may differ between workers; where
                it is 0, the other sizes are ignored.
            axis: axis of the concatenation.

        Returns:
            The array, equal on every worker.
        """
        if self.count == 1:
            return values
        rows = np.moveaxis(values, axis, 0)
        shapes = np.zeros([self.count, rows.ndim], np.int64)
        shapes[self.index] = rows.shape
        shapes = self._sum(shapes.dtype)(shapes.reshape(-1)).numpy().reshape(shapes.shape)
        counts = shapes[:, 0]
        if not counts.any():
            return values
        shape = shapes[np.argmax(counts), 1:]
        size = math.prod(shape)
        first = counts[: self.index].sum() * size
        placed = np.zeros(counts.sum() * size, rows.dtype)
        placed[first : first + rows.size] = rows.reshape(-1)
        gathered = self._sum(rows.dtype)(placed).numpy().reshape(counts.sum(), *shape)
        return np.moveaxis(gathered, 0, axis)

    def from_all(self, value: T) -> list[T]:
        """Returns the values of all workers, in their order.

        Args:
            value: any value that JSON can express; floats keep all digits, and NaN is allowed.
        """
        if self.count == 1:
            return [value]
        text = json.dumps(value, default=float).encode() + b"\n"
        codes = self.gather(np.frombuffer(text, np.uint8).astype(np.int32))
        return [json.loads(line) for line in codes.astype(np.uint8).tobytes().splitlines()]

    def from_chief(self, value: T) -> T:
        """Returns the value of the chief; the values of the other workers are ignored."""
        return value if self.count == 1 else self.from_all(value if self.is_chief else None)[0]  # type: ignore[return-value]

    def on_replicas(self, function: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Applies a function to local rows, which the local replicas divide.

        Args:
            function: [n, ...] -> [n, ...], row by row; n may be 0.
            rows: [N, ...], different on every worker.

        Returns:
            [N, ...], in the order of the rows.
        """
        strategy, replicas_per_worker = self.strategy, self.replicas_per_worker
        if strategy is None or replicas_per_worker == 1:
            return function(rows)
        ends = tf.shape(rows)[0] * tf.range(replicas_per_worker + 1) // replicas_per_worker

        def rows_of(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            place = context.replica_id_in_sync_group % replicas_per_worker
            return rows[ends[place] : ends[place + 1]]

        divided = strategy.experimental_distribute_values_from_function(rows_of)
        results = strategy.run(function, args=(divided,))
        return tf.concat(strategy.experimental_local_results(results), axis=0)

    def _make_sum(self, dtype: np.dtype[Any]) -> Any:
        """Returns a function that sums vectors of equal length over the workers."""
        strategy = self.strategy
        assert strategy is not None

        def on_replica(values: tf.Tensor) -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            # The first replica of a worker stands for the worker.
            is_first = tf.equal(context.replica_id_in_sync_group % self.replicas_per_worker, 0)
            values = tf.where(is_first, values, tf.zeros_like(values))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, values)

        @tf.function(input_signature=[tf.TensorSpec([None], dtype)])
        def total(values: tf.Tensor) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(on_replica, args=(values,)))[0]

        return total


SINGLE_WORKER = Workers()
