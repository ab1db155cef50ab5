"""What happens when the loss, the embeddings or the gradients of a step are not finite numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from ccp_dml.training.checkpoints import Saver
    from ccp_dml.training.chunks import Chunk

POLICIES = ("stop", "skip")


class Diverged(RuntimeError):
    """The loss, the embeddings or the gradients are no longer finite numbers."""


class FiniteGuard(tf.Module):
    """Ends training at a step whose numbers are not finite, or leaves such steps out.

    A step that is left out changes neither weights nor statistics nor memories; the data go on.

    Attributes:
        skips: whether such steps are left out.
        skipped: int64 variable, steps left out so far.
        in_a_row: int64 variable, how many of them came last, without a finite one in between.
    """

    def __init__(self, policy: str = "stop", most_in_a_row: int = 10) -> None:
        """Creates the counters.

        Args:
            policy: 'stop' or 'skip'.
            most_in_a_row: so many steps that are left out in a row end training after all, at least 1.

        Raises:
            ValueError: if the policy is unknown or the number is below 1.
        """
        super().__init__(name="finite_guard")
        if policy not in POLICIES or most_in_a_row < 1:
            raise ValueError(
                f"The policy is {policy!r}, the most steps in a row {most_in_a_row}; "
                f"one of {', '.join(POLICIES)} and at least 1 are expected."
            )
        self.skips, self._most_in_a_row = policy == "skip", most_in_a_row
        self.skipped = tf.Variable(0, trainable=False, dtype=tf.int64, name="skipped")
        self.in_a_row = tf.Variable(0, trainable=False, dtype=tf.int64, name="in_a_row")

    @property
    def logs(self) -> dict[str, int]:
        """`skipped_steps`, once there are any."""
        return {"skipped_steps": int(self.skipped)} if int(self.skipped) else {}

    def note(self, finite: tf.Tensor) -> None:
        """Counts a step; tensor code.

        Args:
            finite: bool scalar, whether all numbers of the step were finite.
        """
        self.skipped.assign_add(tf.cast(~finite, tf.int64))
        self.in_a_row.assign(tf.where(finite, tf.zeros_like(self.in_a_row), self.in_a_row + 1))

    def check(self, chunk: Chunk, saver: Saver) -> None:
        """Looks at a chunk of steps that has been made.

        Args:
            chunk: the chunk.
            saver: knows the newest checkpoint, which the message names.

        Raises:
            Diverged: if steps were not finite and are not left out, or were too many in a row.
        """
        if not chunk.bad or (self.skips and int(self.in_a_row) < self._most_in_a_row):
            return
        bad = [name for name, value in chunk.bad.items() if value - value != 0]
        parts = ", ".join(f"{name} {value:.4g}" for name, value in chunk.bad.items())
        count = f"{int(self.in_a_row)} steps in a row left out; " if self.skips else ""
        kept = f"the last good checkpoint is {saver.latest}" if saver.latest else "there is no checkpoint"
        advice = "a lower learning rate" if self.skips else "a lower learning rate, or to skip such steps"
        raise Diverged(
            f"Not finite at step {chunk.bad_step}: {', '.join(bad)} ({parts}); {count}{kept}. Try {advice}."
        )


def all_finite(scalars: Mapping[str, tf.Tensor]) -> tf.Tensor:
    """Whether all of some float scalars are finite numbers; bool scalar."""
    return tf.reduce_all(tf.math.is_finite(tf.stack(list(scalars.values()))))


def untrained_variables(*parts: object) -> list[tf.Variable]:
    """What a step changes beside weights: statistics, memories, averages of the modules among `parts`."""
    modules = [part for part in parts if isinstance(part, tf.Module)]
    return [variable for module in modules for variable in module.variables if not variable.trainable]


def read(variables: Sequence[tf.Variable]) -> list[tf.Tensor]:
    """The values of variables as they are now, of each replica's copy on it; tensor code."""
    return [variable.read_value() for variable in variables]


def put_back(variables: Sequence[tf.Variable], values: Sequence[Any]) -> None:
    """Gives variables the values that `read` has found; tensor code, outside of the replicas."""
    strategy = tf.distribute.get_strategy()
    for variable, value in zip(variables, values):
        strategy.extended.update(variable, lambda copy, own: copy.assign(own), args=(value,))
