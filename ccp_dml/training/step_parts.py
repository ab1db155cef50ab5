"""What the steps of a run are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from ccp_dml.training.finite import FiniteGuard, untrained_variables
from ccp_dml.training.gradients import GradientTransform
from ccp_dml.training.loss_scaling import DynamicLossScale, loss_scale_for_policy
from ccp_dml.training.optimizers import OptimizerGroups, distinct_variables
from ccp_dml.training.train_step import TrainedLoss, TrainStep


@dataclass(frozen=True)
class StepParts:
    """Model, loss, optimizer and what else a step consists of, whichever variables it trains.

    Attributes:
        model: images -> raw embeddings [B, D].
        loss: what is minimised.
        optimizer: groups that contain all trainable variables of both.
        transforms: applied to the gradients in this order.
        guard: what happens to steps that are not finite.
        jit_compile: compile loss and gradients with XLA.
        loss_scale: scaling for float16; None without.
    """

    model: tf.keras.Model
    loss: TrainedLoss
    optimizer: OptimizerGroups
    transforms: Sequence[GradientTransform]
    guard: FiniteGuard
    jit_compile: bool = False
    loss_scale: DynamicLossScale | None = field(default_factory=loss_scale_for_policy)

    @property
    def variables(self) -> list[tf.Variable]:
        """All that can be trained, each once."""
        return distinct_variables([*self.model.trainable_variables, *self.loss.trainable_variables])

    @property
    def state(self) -> dict[str, Any]:
        """What has to survive a restart, by name; None where there is no such part."""
        modules = [transform for transform in self.transforms if isinstance(transform, tf.Module)]
        return {
            "model": self.model,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "loss_scale": self.loss_scale,
            "guard": self.guard,
            **{module.name: module for module in modules},
        }

    def step(self, variables: Sequence[tf.Variable], learning_rate_scale: float) -> TrainStep:
        """The step that trains some of the variables; see `TrainStep`."""
        return TrainStep(
            self.model,
            self.loss,
            self.optimizer,
            variables,
            transforms=self.transforms,
            loss_scale=self.loss_scale,
            guard=self.guard,
            state=untrained_variables(self.model, self.loss, *self.transforms),
            learning_rate_scale=learning_rate_scale,
            jit_compile=self.jit_compile,
        )
