"""The warm-up: the first epochs of a run, in which the backbone is frozen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import tensorflow as tf


@dataclass(frozen=True)
class WarmUp:
    """The first epochs, which train the embedding layer and the proxies while the backbone is frozen.

    The learning-rate schedule, early stopping and the problem instances of alternating projections begin
    after the warm-up.

    Attributes:
        epochs: number of epochs, 0 for none; the warm-up may end inside an epoch.
        frozen: variables that the warm-up does not train, usually those of the backbone.
        learning_rate_multiplier: factor on the learning rate during the warm-up, positive.
    """

    epochs: float = 0
    frozen: Sequence[tf.Variable] = field(default=(), repr=False)
    learning_rate_multiplier: float = 1.0

    def steps(self, steps_per_epoch: int) -> int:
        """Returns the number of steps, rounded, and at least one unless there are no epochs."""
        return max(1, round(self.epochs * steps_per_epoch)) if self.epochs else 0

    def trained(self, variables: Sequence[tf.Variable]) -> list[tf.Variable]:
        """Returns the variables that are not frozen.

        Raises:
            ValueError: if all are frozen.
        """
        frozen = {variable.ref() for variable in self.frozen}
        remaining = [variable for variable in variables if variable.ref() not in frozen]
        if not remaining:
            raise ValueError("All variables are frozen during the warm-up; expected some to be trained.")
        return remaining
