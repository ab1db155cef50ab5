"""A copy of weights that can be taken, given back and checkpointed."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import tensorflow as tf

from ccp_dml import replicas


class WeightSnapshot(tf.Module):
    """Non-trainable copies of variables, all zero until the first `take`.

    The copy of a variable in parts (`ccp_dml.replicas`) is in the same parts, beside the variable's own.

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
            replicas.assign(copy, value)

    def put_back(self) -> None:
        """Gives the variables the stored values."""
        for variable, copy in zip(self._variables, self.values):
            replicas.assign(variable, copy)


def _zeros_like(variable: tf.Variable, name: str) -> tf.Variable:
    table = replicas.table_of(variable)
    if table is not None:
        return table.like(name)
    return tf.Variable(tf.zeros(variable.shape, variable.dtype), trainable=False, name=name)


def _beside(variables: Sequence[tf.Variable]) -> contextlib.AbstractContextManager[object]:
    """Where copies of variables come to be on all replicas that have these."""
    strategies = (getattr(variable, "distribute_strategy", None) for variable in variables)
    strategy = next((found for found in strategies if found is not None), None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()
