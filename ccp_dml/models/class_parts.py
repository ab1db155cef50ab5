"""Tables [K, C, D] of which each replica of a strategy holds the part of its own classes."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

# What divides a tensor of a checkpoint has no public name.
from tensorflow.python.training.saving.saveable_object import SaveableObject, SaveSpec

from ccp_dml import replicas

# (first class, class after the last) -> float32 [K, count, D].
Source = Callable[[int, int], tf.Tensor]

# The name of a variable's value in a checkpoint.
_VALUE = "VARIABLE_VALUE"
# Numbers of all replicas that are on a device at once when parts are put together: 64 MiB.
_GATHERED_AT_ONCE = 2**24


class ClassParts:
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
        self.size = replicas.part_size(shape[1], self._count)
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
        return replicas.part(self._shape[1], replica, self._count)

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

    def __init__(self, parts: ClassParts, variable: tf.Variable, name: str) -> None:
        specs = [SaveSpec(value, place, name) for place, value in parts.slices(variable)]
        super().__init__(variable, specs, name)
        self._parts = parts

    def restore(self, restored_tensors: Sequence[tf.Tensor], restored_shapes: Any) -> tf.Operation:
        """Called by TensorFlow with the values that were read."""
        self._parts.put_slices(self.op, restored_tensors)
        return tf.no_op()
