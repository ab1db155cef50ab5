"""The two phases of a run: the warm-up, and training proper."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import tensorflow as tf

from ccp_dml.training.chunks import ChunkRunner
from ccp_dml.training.warm_up import WarmUp

MakeRunner = Callable[[Sequence[tf.Variable], float], ChunkRunner]


class Phases:
    """Which variables are trained when, by which runner. A phase is traced when it is entered.

    Attributes:
        steps_per_epoch: at least 1.
        warm_up_steps: number of steps of the warm-up; 0 without.
    """

    def __init__(
        self,
        warm_up: WarmUp,
        steps_per_epoch: int,
        step: tf.Variable,
        variables: Callable[[], Sequence[tf.Variable]],
        make_runner: MakeRunner,
    ) -> None:
        """Begins in the phase of `step`.

        Args:
            warm_up: the first epochs.
            steps_per_epoch: at least 1.
            step: int64 variable, counts the steps.
            variables: gives all variables that are trained after the warm-up.
            make_runner: (variables to train, factor on the learning rate) -> what trains them.
        """
        self._warm_up, self._step = warm_up, step
        self._variables, self._make_runner = variables, make_runner
        self.steps_per_epoch = steps_per_epoch
        self.warm_up_steps = warm_up.steps(steps_per_epoch)
        self._runners: dict[bool, ChunkRunner] = {}

    @property
    def step(self) -> int:
        """Number of steps made."""
        return int(self._step)

    @property
    def warming_up(self) -> bool:
        """Whether the next step is one of the warm-up."""
        return self.step < self.warm_up_steps

    @property
    def begins(self) -> bool:
        """Whether the next step is the first of a phase."""
        return self.step in (0, self.warm_up_steps)

    @property
    def over_warm_up(self) -> bool:
        """Whether the last step was one after the warm-up."""
        return self.step > self.warm_up_steps

    @property
    def learning_rate_multiplier(self) -> float:
        """Factor on the learning rate in this phase."""
        return self._warm_up.learning_rate_multiplier if self.warming_up else 1.0

    def runner(self) -> ChunkRunner:
        """What makes the steps of this phase; traced by the first call in it."""
        warming_up = self.warming_up
        if warming_up not in self._runners:
            variables = self._variables()
            trained = self._warm_up.trained(variables) if warming_up else variables
            self._runners[warming_up] = self._make_runner(trained, self.learning_rate_multiplier)
        return self._runners[warming_up]

    @property
    def trace_count(self) -> int:
        """How often a loop over steps was traced: once for each phase."""
        return sum(runner.trace_count for runner in self._runners.values())

    def steps_left(self, most: int) -> int:
        """How many of `most` steps belong to this phase."""
        return min(most, self.warm_up_steps - self.step) if self.warming_up else most

    def since_warm_up(self, step: tf.Tensor) -> tf.Tensor:
        """Number of steps since the warm-up, 0 during it; tensor code."""
        return tf.maximum(step - self.warm_up_steps, 0)
