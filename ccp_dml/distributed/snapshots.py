"""Copies of weights, such as the best ones so far."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import tensorflow as tf

from ccp_dml.distributed.tables import table_of


class WeightSnapshot(tf.Module):
    """Copies of variables that are not trained; zero until the first `take`.

    The copy of a sharded variable is sharded in the same way.

    Attributes:
        values: the copies, in the order of the variables.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, on_host: bool = True, name: str = "snapshot"):
        """Creates the copies.

        Args:
            variables: the variables to copy, of any shapes and dtypes.
            on_host: keep the copies in host memory, where they take none of an accelerator's. False for
                copies that are read in every training step.
            name: name of the module.
        """
        super().__init__(name=name)
        self._variables = list(variables)
        with tf.device("CPU:0") if on_host else _scope_of(self._variables):
            self.values = [_zeros_like(variable, f"{name}_{i}") for i, variable in enumerate(self._variables)]

    def take(self) -> None:
        """Copies the present values of the variables."""
        self.copy_from(self._variables)

    def copy_from(self, values: Sequence[tf.Tensor | tf.Variable]) -> None:
        """Stores other values; those of sharded variables have to be variables of the same table."""
        for copy, value in zip(self.values, values):
            _assign(copy, value)

    def restore(self) -> None:
        """Assigns the stored values to the variables."""
        for variable, copy in zip(self._variables, self.values):
            _assign(variable, copy)


def _zeros_like(variable: tf.Variable, name: str) -> tf.Variable:
    table = table_of(variable)
    if table is not None:
        return table.zeros(name)
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)


def _scope_of(variables: Sequence[tf.Variable]) -> contextlib.AbstractContextManager[object]:
    """Context in which a variable is created on all replicas that have the given variables."""
    strategies = (getattr(variable, "distribute_strategy", None) for variable in variables)
    strategy = next((found for found in strategies if found is not None), None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def _assign(variable: tf.Variable, value: tf.Tensor | tf.Variable) -> None:
    """Assigns a value, outside of replica context; shard by shard if the variable is sharded."""
    if table_of(variable) is None:
        variable.assign(value)
        return
    shards = variable.distribute_strategy.experimental_local_results
    for shard, other in zip(shards(variable), shards(value)):
        shard.assign(other)
