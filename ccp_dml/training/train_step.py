"""One training step: loss, gradients, transforms, update."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import tensorflow as tf

from ccp_dml.training.finite import FiniteGuard, all_finite, put_back, read
from ccp_dml.training.gradient_transforms import Gradients, GradientTransform
from ccp_dml.training.loss_scaling import DynamicLossScale
from ccp_dml.training.optimizer_groups import OptimizerGroups


class TrainedLoss(Protocol):
    """What a step expects of a loss: `ccp_dml.losses.base.MetricLoss` is one."""

    @property
    def trainable_variables(self) -> Sequence[tf.Variable]:
        """Proxies and other learned values of the loss."""

    def parts(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Named float32 scalars whose sum is the loss."""

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """What is worth a look once in an epoch."""


class TrainStep:
    """Trains a fixed list of variables on one batch per call.

    Loss, gradients and transforms are one function that XLA may compile; the optimizer's update follows it.
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
        """Creates the step.

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
        """
        self._model, self._loss, self._optimizer = model, loss, optimizer
        self._variables = list(variables)
        self._transforms, self._loss_scale = list(transforms), loss_scale
        self._guard = guard if guard is not None and guard.skips else None
        self._state = list(state) if self._guard is not None else []
        self._learning_rate_scale = learning_rate_scale
        self._compute = tf.function(self._gradients, jit_compile=jit_compile or None)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """Makes a step; to be traced.

        Args:
            images: a batch, as the model takes it.
            labels: int [B] or [B, 2] = (class, image id).

        Returns:
            float32 scalars `loss`, its parts, `gradient_norm` (before the transforms) and `embedding_norm`
            (mean over the batch), and the raw embeddings [B, D] in float32.
        """
        before = read(self._state)
        scalars, embeddings, gradients = self._compute(images, labels)
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
            tf.cond(finite, lambda: True, lambda: self._put_back(before))
            conditions.append(finite)
        if conditions:
            tf.cond(tf.reduce_all(conditions), lambda: self._apply(gradients), lambda: True)
        else:
            self._apply(gradients)
        return scalars, embeddings

    def _put_back(self, values: Sequence[tf.Tensor]) -> bool:
        put_back(self._state, values)
        return True

    def _apply(self, gradients: Gradients) -> bool:
        self._optimizer.apply(gradients, self._variables, self._learning_rate_scale)
        return True

    def _gradients(
        self, images: tf.Tensor, labels: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor, Gradients]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(self._variables)
            embeddings = tf.cast(self._model(images, training=True), tf.float32)
            parts = dict(self._loss.parts(labels, embeddings))
            if self._model.losses:
                parts["regularization_loss"] = tf.add_n(self._model.losses)
            total = tf.add_n(list(parts.values()))
            target = total if self._loss_scale is None else self._loss_scale.scaled(total)
        gradients: Gradients = [
            None if gradient is None else tf.convert_to_tensor(gradient)
            for gradient in tape.gradient(target, self._variables)
        ]
        if self._loss_scale is not None:
            gradients = self._loss_scale.unscaled(gradients)
        scalars = {
            "loss": total,
            **parts,
            "gradient_norm": tf.linalg.global_norm([g for g in gradients if g is not None]),
            "embedding_norm": tf.reduce_mean(tf.norm(embeddings, axis=-1)),
        }
        for transform in self._transforms:
            gradients = transform(gradients, self._variables)
        return scalars, embeddings, gradients
