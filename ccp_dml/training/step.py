"""One training step: loss, gradients, transforms, update."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.distributed.tables import global_norm, table_of
from ccp_dml.training.finite import (
    DynamicLossScale,
    FiniteGuard,
    all_finite,
    read_values,
    restore_values,
    untrained_variables,
)
from ccp_dml.training.gradients import Gradients, GradientTransform
from ccp_dml.training.optimizers import OptimizerGroups


class TrainedLoss(Protocol):
    """The members of a loss that a step uses; `ccp_dml.losses.base.MetricLoss` has them."""

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """Proxies and other learned values of the loss."""

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Named float32 scalars whose sum is the loss."""

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Figures to look at once per epoch."""


class StepResult(NamedTuple):
    """The result of a step on a replica.

    Attributes:
        before: values of the untrained variables before the step, if they may have to be restored.
        scalars: float32 scalars by name.
        labels: labels of the global batch.
        embeddings: embeddings of the global batch, raw, float32 [B, D].
        gradients: a gradient or None for each trained variable, equal on every replica; of a sharded
            variable, that of the replica's shard.
    """

    before: list[tf.Tensor]
    scalars: dict[str, tf.Tensor]
    labels: tf.Tensor
    embeddings: tf.Tensor
    gradients: Gradients


class TrainStep:
    """Trains variables of a model and a loss on one batch per call.

    With several replicas, each embeds its rows of the global batch, and gathers the embeddings of all. Each
    then computes the loss of the global batch, as a single device would: so every pair counts once, and the
    loss and its memories are equal on all replicas. Back through the model, each replica takes its rows of
    the gradient for the embeddings; the gradients for the weights are summed over the replicas.

    On one replica, loss, gradients and transforms are one function that XLA may compile; on several, the
    model and the loss are compiled separately, as XLA cannot compile the exchange between replicas. The
    update by the optimizer follows.

    Attributes:
        model: images -> raw embeddings [B, D].
        loss: the loss.
        optimizer: groups with all trainable variables of both.
        guard: stops training at steps that are not finite, or skips them.
        trainable_variables: the trainable variables of model and loss, without repetitions.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        loss: TrainedLoss,
        optimizer: OptimizerGroups,
        *,
        transforms: Sequence[GradientTransform] = (),
        guard: FiniteGuard | None = None,
        jit_compile: bool = False,
    ) -> None:
        """Creates a step that trains all variables.

        With a distribution strategy, model, loss, optimizer, transforms and step are created in its scope,
        and the step is called in it.

        Args:
            model: float32 images [B, H, W, 3] -> embeddings [B, D].
            loss: the loss.
            optimizer: groups with all trainable variables of the model and the loss.
            transforms: applied to the gradients in this order; those that are modules are checkpointed.
            guard: handles steps that are not finite; None: the first one stops training.
            jit_compile: compile with XLA; batches must have a static shape.

        Raises:
            ValueError: if a variable is sharded and `jit_compile` is True.
        """
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.guard = guard or FiniteGuard()
        self._transforms, self._jit_compile = list(transforms), jit_compile
        self._loss_scale = DynamicLossScale.of_policy()
        variables = [*model.trainable_variables, *loss.trainable_variables]
        self.trainable_variables = list({variable.ref(): variable for variable in variables}.values())
        sharded = [variable.name for variable in self.trainable_variables if table_of(variable) is not None]
        if sharded and jit_compile:
            raise ValueError(
                f"jit_compile is True, but {sharded[0]} is sharded: XLA cannot compile the exchange between "
                "replicas in the loss; expected False"
            )
        self._is_sharded = bool(sharded)
        # In a graph, as every tensor that TensorFlow 2.15 gives to Python leaks 48 bytes.
        self._diagnose = tf.function(
            (lambda *batch: self._strategy.run(loss.diagnostics, args=batch)) if sharded else loss.diagnostics
        )
        self._prepare(self.trainable_variables, 1.0)

    @property
    def state(self) -> dict[str, Any]:
        """Modules that have to survive a restart, by name."""
        modules = [transform for transform in self._transforms if isinstance(transform, tf.Module)]
        found = {
            "model": self.model,
            "loss": self.loss,
            "optimizer": self.optimizer,
            "loss_scale": self._loss_scale,
            "guard": self.guard,
            **{module.name: module for module in modules},
        }
        return {name: component for name, component in found.items() if isinstance(component, tf.Module)}

    def training(self, variables: Sequence[tf.Variable], learning_rate_scale: float = 1.0) -> TrainStep:
        """Returns a step with the same state that trains only some variables, in the strategy in scope.

        Args:
            variables: the variables to train; all others are constant.
            learning_rate_scale: factor on the learning rate of the optimizer.
        """
        step = copy.copy(self)
        step._prepare(variables, learning_rate_scale)
        return step

    def _prepare(self, variables: Sequence[tf.Variable], learning_rate_scale: float) -> None:
        self._variables, self._learning_rate_scale = list(variables), learning_rate_scale
        self._strategy, self._replicas = tf.distribute.get_strategy(), replicas.count()
        untrained = untrained_variables(self.model, self.loss, *self._transforms)
        self._restored = untrained if self.guard.skips else []
        self._compute, self._embed, self._compare = self._gradients, self._embedded, self._compared
        if self._replicas == 1:
            self._compute = tf.function(self._gradients, jit_compile=self._jit_compile or None)
        elif self._jit_compile:
            self._embed = tf.function(self._embedded, jit_compile=True)
            self._compare = tf.function(self._compared, jit_compile=True)

    def __call__(self, images: Any, labels: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Makes a step; to be traced, outside of replica context.

        Args:
            images: a batch, as the model takes it; of several replicas, the rows of each.
            labels: int [B] or [B, 2] = (class, image id), likewise.

        Returns:
            float32 scalars `loss`, its components, `gradient_norm` (before the transforms) and
            `embedding_norm` (mean over the batch); the labels of the global batch; and its raw embeddings
            [B, D] in float32.
        """
        result = self._strategy.run(self._on_replica, args=(images, labels))
        scalars = dict(replicas.first_local(result.scalars))
        conditions = []
        if self._loss_scale is not None:
            representable = tf.math.is_finite(scalars["gradient_norm"])
            # An overflow says nothing about the gradient: the step is skipped and the scale lowered.
            scalars["gradient_norm"] = tf.where(representable, scalars["gradient_norm"], 0.0)
            self._loss_scale.update(representable)
            conditions.append(representable)
        if self.guard.skips:
            finite = all_finite(scalars)
            self.guard.record(finite)
            tf.cond(finite, lambda: True, lambda: self._restore(result.before))
            conditions.append(finite)
        if conditions:
            tf.cond(tf.reduce_all(conditions), lambda: self._apply(result.gradients), lambda: True)
        else:
            self._apply(result.gradients)
        return scalars, replicas.first_local(result.labels), replicas.first_local(result.embeddings)

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, npt.NDArray[np.float32]]:
        """Computes `loss.diagnostics` as arrays, for labels and raw embeddings [B, D] of a global batch."""
        if not self._is_sharded:
            found = self._diagnose(labels, embeddings)
        else:
            with self._strategy.scope():
                found = replicas.first_local(self._diagnose(labels, embeddings))
        return {name: np.asarray(value) for name, value in found.items()}

    def _on_replica(self, images: tf.Tensor, labels: tf.Tensor) -> StepResult:
        before = read_values(self._restored)
        return StepResult(before, *self._compute(images, labels))

    def _restore(self, values: Sequence[Any]) -> bool:
        restore_values(self._restored, values)
        return True

    def _apply(self, gradients: Gradients) -> bool:
        self.optimizer.apply(gradients, self._variables, self._learning_rate_scale)
        return True

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor, Gradients]:
        """Computes scalars, labels and embeddings of the global batch, and the transformed gradients."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            rows, regularization = self._embed(images)
        labels, embeddings = replicas.gather_rows(labels), replicas.gather_rows(rows)
        components, embedding_gradient, loss_gradients = self._compare(labels, embeddings)
        # Here and not in the compiled function, which cannot read variables of another device.
        loss_gradients = [
            None if gradient is None else self._scaled(tf.convert_to_tensor(gradient))
            for gradient in loss_gradients
        ]

        outputs, output_gradients = [], []
        if embedding_gradient is not None:
            outputs.append(rows)
            output_gradients.append(replicas.replica_rows(self._scaled(embedding_gradient)))
        if regularization is not None:
            components = {**components, "regularization_loss": regularization}
            outputs.append(regularization)
            output_gradients.append(self._summand(self._scaled(tf.ones([]))))
        model_gradients: Gradients = [None] * len(self._variables)
        if outputs:
            model_gradients = tape.gradient(outputs, self._variables, output_gradients=output_gradients)

        gradients = self._summed(model_gradients, loss_gradients)
        if self._loss_scale is not None:
            gradients = self._loss_scale.unscaled(gradients)
        scalars = {
            "loss": tf.add_n(list(components.values())),
            **components,
            "gradient_norm": global_norm(gradients, self._variables),
            "embedding_norm": tf.reduce_mean(tf.norm(embeddings, axis=-1)),
        }
        for transform in self._transforms:
            gradients = transform(gradients, self._variables)
        return scalars, labels, embeddings, gradients

    def _embedded(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Computes raw embeddings in float32, and the sum of the model's own losses, None without any."""
        embeddings = tf.cast(self.model(images, training=True), tf.float32)
        return embeddings, tf.add_n(self.model.losses) if self.model.losses else None

    def _compared(
        self, labels: tf.Tensor, embeddings: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None, Gradients]:
        """Computes the components of the loss, and its gradients for embeddings and trained variables."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([embeddings, *self._variables])
            components = dict(self.loss.components(labels, embeddings))
            total = tf.add_n(list(components.values()))
        embedding_gradient, *gradients = tape.gradient(total, [embeddings, *self._variables])
        return components, embedding_gradient, gradients

    def _summed(self, model_gradients: Gradients, loss_gradients: Gradients) -> Gradients:
        """Adds the gradients through the model and of the loss itself, and sums them over the replicas.

        Gradients through the model belong to the rows of the replica. Those of the loss itself are equal on
        all replicas up to rounding, and their mean keeps the copies of a variable equal. The gradient of a
        sharded variable is complete on the replica with the shard, and is not summed.
        """
        gradients: Gradients = []
        is_summed: list[bool] = []
        for variable, through_model, of_loss in zip(self._variables, model_gradients, loss_gradients):
            is_sharded = table_of(variable) is not None
            terms = [] if through_model is None else [tf.convert_to_tensor(through_model)]
            if of_loss is not None:
                terms.append(of_loss if is_sharded else self._summand(of_loss))
            gradients.append(sum(terms[1:], terms[0]) if terms else None)
            is_summed.append(bool(terms) and not is_sharded)
        sums = iter(replicas.sum_over_replicas([g for g, chosen in zip(gradients, is_summed) if chosen]))
        return [next(sums) if chosen else gradient for gradient, chosen in zip(gradients, is_summed)]

    def _summand(self, value: tf.Tensor) -> tf.Tensor:
        """Divides a value that all replicas have, so that it is the sum over the replicas."""
        return value if self._replicas == 1 else value / self._replicas

    def _scaled(self, loss: tf.Tensor) -> tf.Tensor:
        return loss if self._loss_scale is None else self._loss_scale.scaled(loss)
