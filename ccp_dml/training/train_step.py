"""One training step: loss, gradients, transforms, update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.training.finite import FiniteGuard, all_finite, put_back, read
from ccp_dml.training.gradients import Gradients, GradientTransform
from ccp_dml.training.loss_scaling import DynamicLossScale
from ccp_dml.training.optimizers import OptimizerGroups


class TrainedLoss(Protocol):
    """What a step expects of a loss: `ccp_dml.losses.base.MetricLoss` is one."""

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """Proxies and other learned values of the loss."""

    def parts(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Named float32 scalars whose sum is the loss."""

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is worth a look once in an epoch."""


class StepResult(NamedTuple):
    """What a replica has computed for a step; only `before` and `gradients` are used on every replica.

    Attributes:
        before: values that state variables had.
        scalars: float32 scalars by name.
        labels: of the global batch.
        embeddings: of the global batch, raw, float32 [B, D].
        gradients: one or None for each trained variable, equal on every replica; of a variable in parts that
            of the replica's part.
    """

    before: list[tf.Tensor]
    scalars: dict[str, tf.Tensor]
    labels: tf.Tensor
    embeddings: tf.Tensor
    gradients: Gradients


class TrainStep:
    """Trains a fixed list of variables on one batch per call.

    The batch is that of all replicas together. Each of them embeds its rows, and compares the embeddings of
    all as one device would: so every pair counts once, and what the loss computes of the whole batch, and
    remembers of it, is the same everywhere. The gradient of the loss for the embeddings then goes back
    through the model, each replica taking its rows, and what the replicas find for the weights is summed.

    On one replica loss, gradients and transforms are one function that XLA may compile; on several, the
    model and the loss are one each, as what replicas exchange cannot be inside of it. The optimizer's update
    follows.
    """

    def __init__(
        self,
        model: tf.keras.Model,
        loss: TrainedLoss,
        optimizer: OptimizerGroups,
        variables: Sequence[tf.Variable],
        *,
        transforms: Sequence[GradientTransform] = (),
        loss_scale: DynamicLossScale | None = None,
        guard: FiniteGuard | None = None,
        state: Sequence[tf.Variable] = (),
        learning_rate_scale: float = 1.0,
        jit_compile: bool = False,
    ) -> None:
        """Creates the step, for the distribution strategy that is in scope.

        Args:
            model: float32 images [B, H, W, 3] -> embeddings [B, D].
            loss: the loss.
            optimizer: groups that contain all of `variables`.
            variables: what is trained; everything else is constant.
            transforms: applied to the gradients in this order.
            loss_scale: scaling for float16; None for none.
            guard: what happens to a step that is not finite; None: it is made.
            state: other variables that a step changes; a step that is left out does not.
            learning_rate_scale: factor on the optimizer's rate.
            jit_compile: compile with XLA; batches must have a static shape.

        Raises:
            ValueError: if a variable is in parts (`distributed.replicas`) and the step is to be compiled.
        """
        in_parts = [variable.name for variable in variables if replicas.table_of(variable) is not None]
        if in_parts and jit_compile:
            raise ValueError(
                f"jit_compile is True, but {in_parts[0]} has a part on each replica: what they exchange in "
                "the loss cannot be compiled; expected False"
            )
        self._strategy = tf.distribute.get_strategy()
        self._replicas = replicas.count()
        self._model, self._loss, self._optimizer = model, loss, optimizer
        self._variables = list(variables)
        self._transforms, self._loss_scale = list(transforms), loss_scale
        self._guard = guard if guard is not None and guard.skips else None
        self._state = list(state) if self._guard is not None else []
        self._learning_rate_scale = learning_rate_scale
        self._compute, self._embed, self._compare = self._gradients, self._embedded, self._compared
        if self._replicas == 1:
            self._compute = tf.function(self._gradients, jit_compile=jit_compile or None)
        elif jit_compile:
            self._embed = tf.function(self._embedded, jit_compile=True)
            self._compare = tf.function(self._compared, jit_compile=True)

    def __call__(self, images: Any, labels: Any) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor]:
        """Makes a step; to be traced, outside of the replicas.

        Args:
            images: a batch, as the model takes it; of several replicas, the rows of each.
            labels: int [B] or [B, 2] = (class, image id), likewise.

        Returns:
            float32 scalars `loss`, its parts, `gradient_norm` (before the transforms) and `embedding_norm`
            (mean over the batch); the labels of the whole batch; and its raw embeddings [B, D] in float32.
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
        if self._guard is not None:
            finite = all_finite(scalars)
            self._guard.note(finite)
            tf.cond(finite, lambda: True, lambda: self._put_back(found.before))
            conditions.append(finite)
        if conditions:
            tf.cond(tf.reduce_all(conditions), lambda: self._apply(found.gradients), lambda: True)
        else:
            self._apply(found.gradients)
        return scalars, replicas.first_local(found.labels), replicas.first_local(found.embeddings)

    def _on_replica(self, images: tf.Tensor, labels: tf.Tensor) -> StepResult:
        before = read(self._state)
        return StepResult(before, *self._compute(images, labels))

    def _put_back(self, values: Sequence[Any]) -> bool:
        put_back(self._state, values)
        return True

    def _apply(self, gradients: Gradients) -> bool:
        self._optimizer.apply(gradients, self._variables, self._learning_rate_scale)
        return True

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, tf.Tensor, Gradients]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            own_embeddings, regularization = self._embed(images)
        labels, embeddings = replicas.gather_rows(labels), replicas.gather_rows(own_embeddings)
        parts, slopes, of_loss = self._compare(labels, embeddings)
        # Not in the compiled function, which must not read what is on another device.
        of_loss = [None if slope is None else self._scaled(tf.convert_to_tensor(slope)) for slope in of_loss]
        targets = [] if slopes is None else [(own_embeddings, replicas.own_rows(self._scaled(slopes)))]
        if regularization is not None:
            parts = {**parts, "regularization_loss": regularization}
            targets.append((regularization, self._share(self._scaled(tf.ones([])))))
        gradients = self._summed(self._through_model(tape, targets), of_loss)
        if self._loss_scale is not None:
            gradients = self._loss_scale.unscaled(gradients)
        scalars = {
            "loss": tf.add_n(list(parts.values())),
            **parts,
            "gradient_norm": replicas.global_norm(gradients, self._variables),
            "embedding_norm": tf.reduce_mean(tf.norm(embeddings, axis=-1)),
        }
        for transform in self._transforms:
            gradients = transform(gradients, self._variables)
        return scalars, labels, embeddings, gradients

    def _embedded(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Raw embeddings in float32, and the sum of the model's own losses, if it has any."""
        embeddings = tf.cast(self._model(images, training=True), tf.float32)
        return embeddings, tf.add_n(self._model.losses) if self._model.losses else None

    def _compared(
        self, labels: tf.Tensor, embeddings: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor | None, Gradients]:
        """Parts of the loss of the global batch; the gradients for its embeddings and for the variables."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([embeddings, *self._variables])
            parts = dict(self._loss.parts(labels, embeddings))
            target = tf.add_n(list(parts.values()))
        slopes, *gradients = tape.gradient(target, [embeddings, *self._variables])
        return parts, slopes, gradients

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
        variable in parts is complete on the replica that has the part.
        """
        own: Gradients = []
        shared = [replicas.table_of(variable) is None for variable in self._variables]
        for through_model, direct, equal in zip(of_model, of_loss, shared):
            terms = [] if through_model is None else [tf.convert_to_tensor(through_model)]
            if direct is not None:
                whole = tf.convert_to_tensor(direct)
                terms.append(self._share(whole) if equal else whole)
            own.append(sum(terms[1:], terms[0]) if terms else None)
        summed = [equal and gradient is not None for gradient, equal in zip(own, shared)]
        sums = iter(replicas.sum_over_replicas([g for g, is_summed in zip(own, summed) if is_summed]))
        return [next(sums) if is_summed else gradient for gradient, is_summed in zip(own, summed)]

    def _share(self, value: tf.Tensor) -> tf.Tensor:
        """What a replica contributes to a sum of something that all of them have."""
        return value if self._replicas == 1 else value / self._replicas

    def _scaled(self, loss: tf.Tensor) -> tf.Tensor:
        return loss if self._loss_scale is None else self._loss_scale.scaled(loss)
