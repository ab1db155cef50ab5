"""The processes of a `tf.distribute` strategy: how they share work, and what they tell one another.

Everything goes through one sum over the strategy's replicas, to which each worker brings its part in a place
of its own among zeros: exact, and in the order of the workers. All workers have to call the same functions in
the same order.
"""

from __future__ import annotations

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
        count: how many there are, W.
        index: which one this is, from 0; 0 is the chief, which alone writes the run directory.
        local: replicas of each worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy | None = None) -> None:
        """Looks at the strategy that a run trains with; None for one device."""
        self._strategy = strategy
        self.count, self.index, self.local = 1, 0, 1
        if strategy is not None:
            ids = strategy.experimental_distribute_values_from_function(
                lambda here: here.replica_id_in_sync_group
            )
            own = strategy.experimental_local_results(ids)
            self.local = len(own)
            self.count = strategy.num_replicas_in_sync // self.local
            self.index = int(own[0]) // self.local
        self._sum = functools.cache(self._make_sum)

    @property
    def is_chief(self) -> bool:
        """Whether this is the worker that writes."""
        return self.index == 0

    def share(self, total: int) -> slice:
        """The part of `total` things that belongs to this worker; contiguous, in the order of the workers.

        Each replica has ceil(total / R) of them, as far as there are any.
        """
        first, total_replicas = self.index * self.local, self.count * self.local
        parts = [replicas.part(total, first + own, total_replicas) for own in (0, self.local - 1)]
        return slice(parts[0].start, parts[1].stop)

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
        """What each worker gives, in their order.

        Args:
            value: of what JSON can express; numbers come back with all their digits, NaN included.
        """
        if self.count == 1:
            return [value]
        text = json.dumps(value, default=float).encode() + b"\n"
        codes = self.gather(np.frombuffer(text, np.uint8).astype(np.int32))
        return [json.loads(line) for line in codes.astype(np.uint8).tobytes().splitlines()]

    def from_chief(self, value: T) -> T:
        """What the chief gives; that of the others is not looked at."""
        return value if self.count == 1 else self.from_all(value if self.is_chief else None)[0]  # type: ignore[return-value]

    def on_replicas(self, function: Callable[[tf.Tensor], tf.Tensor], rows: tf.Tensor) -> tf.Tensor:
        """Applies a function to rows, to a contiguous part of them on each replica of this worker.

        Args:
            function: [n, ...] -> [n, ...], row by row; n may be 0.
            rows: [N, ...], of this worker alone.

        Returns:
            [N, ...], in the order of the rows.
        """
        strategy, local = self._strategy, self.local
        if strategy is None or local == 1:
            return function(rows)
        ends = tf.shape(rows)[0] * tf.range(local + 1) // local

        def part(here: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            place = here.replica_id_in_sync_group % local
            return rows[ends[place] : ends[place + 1]]

        parts = strategy.experimental_distribute_values_from_function(part)
        found = strategy.run(function, args=(parts,))
        return tf.concat(strategy.experimental_local_results(found), axis=0)

    def _make_sum(self, dtype: np.dtype[Any]) -> Any:
        """A function that gives the sum over workers of vectors of equal length."""
        strategy = self._strategy
        assert strategy is not None

        def on_replica(values: tf.Tensor) -> tf.Tensor:
            here = tf.distribute.get_replica_context()
            # Of the replicas of a worker the first one brings what the worker has.
            own = tf.equal(here.replica_id_in_sync_group % self.local, 0)
            return here.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(own, values, tf.zeros_like(values)))

        @tf.function(input_signature=[tf.TensorSpec([None], dtype)])
        def total(values: tf.Tensor) -> tf.Tensor:
            return strategy.experimental_local_results(strategy.run(on_replica, args=(values,)))[0]

        return total


ALONE = Workers()
