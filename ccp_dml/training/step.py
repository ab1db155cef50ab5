"""One training step: loss, gradients, transforms, update."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.training.finite import (
    DynamicLossScale,
    FiniteGuard,
    all_finite,
    put_back,
    read,
    untrained_variables,
)
from ccp_dml.training.gradients import Gradients, GradientTransform
from ccp_dml.training.optimizers import OptimizerGroups, distinct_variables


class TrainedLoss(Protocol):
    """The methods of a loss that a step calls; `ccp_dml.losses.base.MetricLoss` has them."""

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """Proxies and other learned values of the loss."""

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Named float32 scalars whose sum is the loss."""

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Figures to look at once per epoch."""


class StepResult(NamedTuple):
    """The result of a step on a replica; only `before` and `gradients` are used on every replica.

    Attributes:
        before: values that untrained variables had.
        scalars: float32 scalars by name.
        labels: of the global batch.
        embeddings: of the global batch, raw, float32 [B, D].
        gradients: one or None for each trained variable, equal on every replica; of a sharded variable that
            of the replica's shard.
    """

    before: list[tf.Tensor]
    scalars: dict[str, tf.Tensor]
    labels: tf.Tensor
    embeddings: tf.Tensor
    gradients: Gradients


class TrainStep:
    """Trains variables of a model and a loss on one batch per call.

    The batch is that of all replicas together. Each of them embeds its rows, and compares the embeddings of
    all as one device would: so every pair counts once, and the loss and its memories are the same everywhere.
    The gradient of the loss for the embeddings then goes back through the model, each replica taking its
    rows, and the gradients of the replicas for the weights are summed.

    On one replica loss, gradients and transforms are one function that XLA may compile; on several, the
    model and the loss are one each, as XLA cannot compile what replicas exchange. The optimizer's update
    follows.

    Attributes:
        model: images -> raw embeddings [B, D].
        loss: what is minimised.
        optimizer: groups that contain all trainable variables of both.
        guard: what happens to a step that is not finite.
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

        With a distribution strategy, model, loss, optimizer and transforms are made in its scope, and the
        step is called in it.

        Args:
            model: float32 images [B, H, W, 3] -> embeddings [B, D].
            loss: the loss.
            optimizer: groups that contain all trainable variables of the model and the loss.
            transforms: applied to the gradients in this order; those that are modules are checkpointed.
            guard: what happens to a step that is not finite; None: the first one ends training.
            jit_compile: compile with XLA; batches must have a static shape.

        Raises:
            ValueError: if a variable is sharded and the step is to be compiled.
        """
        self.model, self.loss, self.optimizer = model, loss, optimizer
        self.guard = guard or FiniteGuard()
        self._transforms, self._jit_compile = list(transforms), jit_compile
        self._loss_scale = DynamicLossScale.of_policy()
        variables = self.trainable_variables
        sharded = [variable.name for variable in variables if replicas.table_of(variable) is not None]
        if sharded and jit_compile:
            raise ValueError(
                f"jit_compile is True, but {sharded[0]} is sharded: XLA cannot compile the exchange between "
                "replicas in the loss; expected False"
            )
        self._prepare(variables, 1.0)

    @property
    def trainable_variables(self) -> list[tf.Variable]:
        """All that can be trained, each once."""
        return distinct_variables([*self.model.trainable_variables, *self.loss.trainable_variables])

    @property
    def state(self) -> dict[str, Any]:
        """Everything that has to survive a restart, by name."""
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
        """A step with the same state that trains some of the variables, in the strategy in scope.

        Args:
            variables: what is trained; everything else is constant.
            learning_rate_scale: factor on the optimizer's rate.
        """
        step = copy.copy(self)
        step._prepare(variables, learning_rate_scale)
        return step

    def _prepare(self, variables: Sequence[tf.Variable], learning_rate_scale: float) -> None:
        self._variables, self._learning_rate_scale = list(variables), learning_rate_scale
        self._strategy, self._replicas = tf.distribute.get_strategy(), replicas.count()
        changing = untrained_variables(self.model, self.loss, *self._transforms)
        self._restored = changing if self.guard.skips else []
        self._compute, self._embed, self._compare = self._gradients, self._embedded, self._compared
        if self._replicas == 1:
            self._compute = tf.function(self._gradients, jit_compile=self._jit_compile or None)
        elif self._jit_compile:
            self._embed = tf.function(self._embedded, jit_compile=True)
            self._compare = tf.function(self._compared, jit_compile=True)

    def __call__(self, images: Any, labels: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Makes a step; to be traced, outside of the replicas.

        Args:
            images: a batch, as the model takes it; of several replicas, the rows of each.
            labels: int [B] or [B, 2] = (class, image id), likewise.

        Returns:
            float32 scalars `loss`, its components, `gradient_norm` (before the transforms) and
            `embedding_norm` (mean over the batch); the labels of the whole batch; and its raw embeddings
            [B, D] in float32.
        """
        found = self._strategy.run(self._on_replica, args=(images, labels))
        scalars = dict(replicas.first_local(found.scalars))
        conditions = []
        if self._loss_scale is not None:
            representable = tf.math.is_finite(scalars["gradient_norm"])
            # An overflow says nothing about the gradient: the step is left out and the scale lowered.
            scalars["gradient_norm"] = tf.where(representable, scalars["gradient_norm"], 0.0)
            self._loss_scale.update(representable)
            conditions.append(representable)
        if self.guard.skips:
            finite = all_finite(scalars)
            self.guard.record(finite)
            tf.cond(finite, lambda: True, lambda: self._put_back(found.before))
            conditions.append(finite)
        if conditions:
            tf.cond(tf.reduce_all(conditions), lambda: self._apply(found.gradients), lambda: True)
        else:
            self._apply(found.gradients)
        return scalars, replicas.first_local(found.labels), replicas.first_local(found.embeddings)

    def _on_replica(self, images: tf.Tensor, labels: tf.Tensor) -> StepResult:
        before = read(self._restored)
        return StepResult(before, *self._compute(images, labels))

    def _put_back(self, values: Sequence[Any]) -> bool:
        put_back(self._restored, values)
        return True

    def _apply(self, gradients: Gradients) -> bool:
        self.optimizer.apply(gradients, self._variables, self._learning_rate_scale)
        return True

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor, Gradients]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            local_embeddings, regularization = self._embed(images)
        labels, embeddings = replicas.gather_rows(labels), replicas.gather_rows(local_embeddings)
        components, slopes, of_loss = self._compare(labels, embeddings)
        # Not in the compiled function, which must not read what is on another device.
        of_loss = [None if slope is None else self._scaled(tf.convert_to_tensor(slope)) for slope in of_loss]
        targets = [] if slopes is None else [(local_embeddings, replicas.local_rows(self._scaled(slopes)))]
        if regularization is not None:
            components = {**components, "regularization_loss": regularization}
            targets.append((regularization, self._per_replica(self._scaled(tf.ones([])))))
        gradients = self._summed(self._through_model(tape, targets), of_loss)
        if self._loss_scale is not None:
            gradients = self._loss_scale.unscaled(gradients)
        scalars = {
            "loss": tf.add_n(list(components.values())),
            **components,
            "gradient_norm": replicas.global_norm(gradients, self._variables),
            "embedding_norm": tf.reduce_mean(tf.norm(embeddings, axis=-1)),
        }
        for transform in self._transforms:
            gradients = transform(gradients, self._variables)
        return scalars, labels, embeddings, gradients

    def _embedded(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Raw embeddings in float32, and the sum of the model's own losses, if it has any."""
        embeddings = tf.cast(self.model(images, training=True), tf.float32)
        return embeddings, tf.add_n(self.model.losses) if self.model.losses else None

    def _compared(
        self, labels: tf.Tensor, embeddings: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None, Gradients]:
        """Components of the loss of the global batch; the gradients for its embeddings and the variables."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([embeddings, *self._variables])
            components = dict(self.loss.components(labels, embeddings))
            target = tf.add_n(list(components.values()))
        slopes, *gradients = tape.gradient(target, [embeddings, *self._variables])
        return components, slopes, gradients

    def _through_model(
        self, tape: tf.GradientTape, targets: Sequence[tuple[tf.Tensor, tf.Tensor]]
    ) -> Gradients:
        """Gradients for the variables, of outputs of the model and the gradients for these."""
        if not targets:
            return [None] * len(self._variables)
        outputs, slopes = zip(*targets)
        return tape.gradient(list(outputs), self._variables, output_gradients=list(slopes))

    def _summed(self, of_model: Gradients, of_loss: Gradients) -> Gradients:
        """The gradients of the whole batch.

        Those that go through the model are of the replica's rows; those of the loss's own variables are the
        same everywhere: their mean lets no rounding make the copies of a variable drift apart. That of a
        sharded variable is complete on the replica that has the shard.
        """
        local: Gradients = []
        shared = [replicas.table_of(variable) is None for variable in self._variables]
        for through_model, direct, equal in zip(of_model, of_loss, shared):
            terms = [] if through_model is None else [tf.convert_to_tensor(through_model)]
            if direct is not None:
                whole = tf.convert_to_tensor(direct)
                terms.append(self._per_replica(whole) if equal else whole)
            local.append(sum(terms[1:], terms[0]) if terms else None)
        summed = [equal and gradient is not None for gradient, equal in zip(local, shared)]
        sums = iter(replicas.sum_over_replicas([g for g, is_summed in zip(local, summed) if is_summed]))
        return [next(sums) if is_summed else gradient for gradient, is_summed in zip(local, summed)]

    def _per_replica(self, value: tf.Tensor) -> tf.Tensor:
        """A replica's summand of a value that all of them have."""
        return value if self._replicas == 1 else value / self._replicas

    def _scaled(self, loss: tf.Tensor) -> tf.Tensor:
        return loss if self._loss_scale is None else self._loss_scale.scaled(loss)
