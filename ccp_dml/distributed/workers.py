"""The processes of a `tf.distribute` strategy: how they divide work and exchange values.

Every exchange is one sum over the strategy's replicas, in which each worker has its values in a place of its
own among zeros: exact, and in the order of the workers. All workers have to call the same functions in the
same order.
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
    """The worker processes of a strategy; without one, or with one process, nothing is exchanged.

    Attributes:
        strategy: the strategy; None for one device.
        count: number of workers W.
        index: number of this one, from 0; 0 is the chief, which alone writes the run directory.
        local: replicas of each worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None, *, divides_work: bool = True) -> None:
        """Takes the strategy that a run trains with.

        Args:
            strategy: the strategy; None for one device.
            divides_work: whether evaluation, pools and search are divided among the replicas; if not, each
                process does them on one device.
        """
        self.strategy = strategy
        self.count, self.index, self.local = 1, 0, 1
        if strategy is not None and divides_work:
            ids = strategy.experimental_distribute_values_from_function(
                lambda here: here.replica_id_in_sync_group
            )
            local = strategy.experimental_local_results(ids)
            self.local = len(local)
            self.count = strategy.num_replicas_in_sync // self.local
            self.index = int(local[0]) // self.local
        self._sum = functools.cache(self._make_sum)

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes."""
        return self.index == 0

    def scope(self) -> contextlib.AbstractContextManager[None]:
        """The context in which model, loss and optimizer are made."""
        return contextlib.nullcontext() if self.strategy is None else replicas.scope(self.strategy)

    def local_slice(self, total: int) -> slice:
        """The items of `total` that belong to this worker; contiguous, in the order of the workers.

        Each replica has ceil(total / R) of them, as far as there are any.
        """
        first, total_replicas = self.index * self.local, self.count * self.local
        last = first + self.local - 1
        start, stop = (replicas.items_of(total, number, total_replicas) for number in (first, last))
        return slice(start.start, stop.stop)

    def gather(self, rows: Array) -> Array:
        """The rows of all workers, in their order.

        Args:
            rows: float32, float64, int32 or int64 [n_w, ...]; n_w differs between workers and may be 0, and
                then the other sizes need not be right.

        Returns:
            [n_0 + n_1 + …, ...], equal on every worker.
        """
        if self.count == 1:
            return rows
        sizes = np.zeros([self.count, 2], np.int64)
        sizes[self.index] = len(rows), rows.size
        sizes = self._sum(np.dtype(np.int64))(sizes.reshape(-1)).numpy().reshape(sizes.shape)
        (number, total), first = sizes.sum(0), sizes[: self.index, 1].sum()
        if not total:
            return rows
        placed = np.zeros(total, rows.dtype)
        placed[first : first + rows.size] = rows.reshape(-1)
        gathered: Array = self._sum(rows.dtype)(placed).numpy()
        if rows.ndim == 1:
            return gathered
        shape = rows.shape[1:] if len(rows) or rows.ndim > 2 else (total // max(number, 1),)
        return gathered.reshape(number, *shape)

    def gather_columns(self, columns: Array) -> Array:
        """The same along the second axis: [K, n_w, ...] -> [K, n_0 + n_1 + …, ...]."""
        if self.count == 1:
            return columns
        rows = np.ascontiguousarray(np.moveaxis(columns, 1, 0))
        gathered = self.gather(rows.reshape(len(rows), math.prod(rows.shape[1:])))
        return np.moveaxis(gathered.reshape(len(gathered), len(columns), -1), 0, 1).reshape(
            len(columns), len(gathered), *([-1] if columns.ndim > 2 else [])
        )

    def from_all(self, value: T) -> list[T]:
        """The values of all workers, in their order.

        Args:
            value: anything that JSON can express; numbers come back with all their digits, NaN included.
        """
        if self.count == 1:
            return [value]
        text = json.dumps(value, default=float).encode() + b"\n"
        codes = self.gather(np.frombuffer(text, np.uint8).astype(np.int32))
        return [json.loads(line) for line in codes.astype(np.uint8).tobytes().splitlines()]

    def from_chief(self, value: T) -> T:
        """The value of the chief; those of the others are ignored."""
        return value if self.count == 1 else self.from_all(value if self.is_chief else None)[0]  # type: ignore[return-value]

    def on_replicas(self, function: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Applies a function to rows, to a contiguous part of them on each replica of this worker.

        Args:
            function: [n, ...] -> [n, ...], row by row; n may be 0.
            rows: [N, ...], of this worker alone.

        Returns:
            [N, ...], in the order of the rows.
        """
        strategy, local = self.strategy, self.local
        if strategy is None or local == 1:
            return function(rows)
        ends = tf.shape(rows)[0] * tf.range(local + 1) // local

        def rows_of(here: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            place = here.replica_id_in_sync_group % local
            return rows[ends[place] : ends[place + 1]]

        divided = strategy.experimental_distribute_values_from_function(rows_of)
        found = strategy.run(function, args=(divided,))
        return tf.concat(strategy.experimental_local_results(found), axis=0)

    def _make_sum(self, dtype: np.dtype[Any]) -> Any:
        """A function that gives the sum over workers of vectors of equal length."""
        strategy = self.strategy
        assert strategy is not None

        def on_replica(values: tf.Tensor) -> tf.Tensor:
            here = tf.distribute.get_replica_context()
            # Of the replicas of a worker the first one stands for the worker.
            first = tf.equal(here.replica_id_in_sync_group % self.local, 0)
            return here.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(first, values, tf.zeros_like(values)))

        @tf.function(input_signature=[tf.TensorSpec([None], dtype)])
        def total(values: tf.Tensor) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(on_replica, args=(values,)))[0]

        return total


SINGLE_WORKER = Workers()
