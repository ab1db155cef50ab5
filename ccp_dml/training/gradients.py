"""Gradient transforms: the operations on gradients between the loss and the optimizer.

A transform is a function of the gradients and their variables, in the same order; it returns the new
gradients. The gradient of a variable that the loss does not depend on is None and stays None. All are tensor
code that compiles with XLA. A transform with state is a `tf.Module`, which is part of the checkpoints. With
several replicas, transforms run on each of them; a gradient of a sharded variable is that of the replica's
shard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType

import tensorflow as tf

from ccp_dml.distributed.replicas import per_replica_state
from ccp_dml.distributed.tables import global_norm
from ccp_dml.training.options import GradientOptions

Gradients = list[tf.Tensor | None]
GradientTransform = Callable[[Gradients, Sequence[tf.Variable]], Gradients]


def make_transforms(
    options: GradientOptions,
    weights: Sequence[tf.Variable],
    *,
    proximal: ProximalTerm | None = None,
    exclude_from_decay: Iterable[tf.Variable] = (),
) -> list[GradientTransform]:
    """Creates the transforms that the options ask for, in the order in which they are applied.

    Clipping by value is left out if the norm is not larger: then no component exceeds the value.

    Args:
        options: the options.
        weights: the trainable weights of the embedding model, whose averages may be regularised.
        proximal: the proximal term, if any.
        exclude_from_decay: variables that are not decayed.
    """
    transforms: list[GradientTransform] = [] if proximal is None else [proximal]
    if options.ema_attraction or options.ema_repulsion:
        transforms.append(
            AverageRegularization(
                weights,
                attraction=options.ema_attraction,
                repulsion=options.ema_repulsion,
                decay=options.ema_decay,
            )
        )
    if options.weight_decay:
        transforms.append(WeightDecay(options.weight_decay, exclude_from_decay))
    norm, value = options.clip_norm, options.clip_value
    if norm:
        transforms.append(ClipByGlobalNorm(norm))
    if value and (not norm or norm > value):
        transforms.append(ClipByValue(value))
    return transforms


class ProximalTerm:
    """Adds `coefficient * (w - anchor)`, the gradient of `coefficient / 2 * |w - anchor|²`.

    The term pulls the weights to the solution of the last problem instance. Variables without an anchor, such
    as the proxies, are not changed.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        anchors: Sequence[tf.Variable],
        coefficient: float | tf.Variable,
    ) -> None:
        """Creates the term.

        Args:
            weights: the variables that are pulled, matched by identity.
            anchors: the anchor of each weight, in the same order and of the same shapes.
            coefficient: non-negative scalar; a variable is read at every call.

        Raises:
            ValueError: if the numbers of weights and anchors differ.
        """
        self._anchors = {weight.ref(): anchor for weight, anchor in zip(weights, anchors, strict=True)}
        self._coefficient = coefficient

    def __call__(self, gradients: Gradients, variables: Sequence[tf.Variable]) -> Gradients:
        """Returns the gradients with the term added."""

        def pulled(gradient: tf.Tensor | None, variable: tf.Variable) -> tf.Tensor | None:
            anchor = self._anchors.get(variable.ref())
            if gradient is None or anchor is None:
                return gradient
            coefficient = tf.cast(self._coefficient, gradient.dtype)
            return gradient + coefficient * (variable - anchor)

        return [pulled(gradient, variable) for gradient, variable in zip(gradients, variables)]


class AverageRegularization(tf.Module):
    """Pulls weights to their moving averages from far away, and pushes them off from nearby.

    With d the Euclidean distance of all regularised weights w from their averages a, and n the number of
    their components, it adds the gradient of `attraction / 3 * d^3 + repulsion * n / d`, a being constant:

        a <- decay * a + (1 - decay) * w
        g <- g + (attraction * d^2 - repulsion * n / d^2) * (w - a) / d

    which is 0 at `d = (repulsion * n / attraction)^(1/4)`. Close to w = a the repulsion is unbounded: clip
    the norm of the gradients. At w = a it has no direction, and nothing is added. Variables that are not
    regularised, such as the proxies, or have no gradient are not changed, nor are their averages.

    Attributes:
        averages: float32 variables, one per weight, at first equal to the weights; part of checkpoints.
    """

    def __init__(
        self, weights: Sequence[tf.Variable], *, attraction: float, repulsion: float, decay: float
    ) -> None:
        """Creates the averages.

        Args:
            weights: the variables that are regularised, matched by identity.
            attraction: weight of the attractive term, non-negative.
            repulsion: weight of the repulsive term per component, non-negative.
            decay: share of an average that a step keeps, in [0, 1).
        """
        super().__init__(name="average_regularization")
        self._attraction, self._decay = attraction, decay
        self._repulsion = repulsion * sum(weight.shape.num_elements() for weight in weights)
        self.averages = [
            per_replica_state(tf.cast(weight.read_value(), tf.float32), name="average") for weight in weights
        ]
        # A module would try to checkpoint a plain dictionary, and would list variables in it in the order of
        # the keys, which changes from process to process: hence the proxy, of positions.
        self._position_of = MappingProxyType({weight.ref(): i for i, weight in enumerate(weights)})

    def __call__(self, gradients: Gradients, variables: Sequence[tf.Variable]) -> Gradients:
        """Updates the averages and returns the gradients with the term added."""
        offsets = [
            None if gradient is None else self._offset(variable)
            for gradient, variable in zip(gradients, variables)
        ]
        regularised = [offset for offset in offsets if offset is not None]
        if not regularised:
            return gradients
        factor = self._factor(tf.linalg.global_norm(regularised))
        return [
            gradient
            if gradient is None or offset is None
            else gradient + tf.cast(factor * offset, gradient.dtype)
            for gradient, offset in zip(gradients, offsets)
        ]

    def _offset(self, variable: tf.Variable) -> tf.Tensor | None:
        """Difference of a weight from its updated average, in float32; None for any other variable."""
        position = self._position_of.get(variable.ref())
        if position is None:
            return None
        average = self.averages[position]
        weight = tf.cast(variable, tf.float32)
        updated = average + (1.0 - self._decay) * (weight - average)
        average.assign(updated)
        return weight - updated

    def _factor(self, distance: tf.Tensor) -> tf.Tensor:
        """Coefficient of the offset: float32 scalar, 0 where it would not be finite."""
        squared = tf.square(distance)
        factor = (self._attraction * squared - tf.math.divide_no_nan(self._repulsion, squared)) / distance
        return tf.where(tf.math.is_finite(factor), factor, 0.0)


class WeightDecay:
    """Adds `rate * w`, the gradient of `rate / 2 * |w|²`, except for excluded variables."""

    def __init__(self, rate: float, exclude: Iterable[tf.Variable] = ()) -> None:
        """Creates the transform.

        Args:
            rate: decay rate, non-negative.
            exclude: variables that are not decayed, matched by identity.
        """
        self._rate = rate
        self._excluded = {variable.ref() for variable in exclude}

    def __call__(self, gradients: Gradients, variables: Sequence[tf.Variable]) -> Gradients:
        """Returns the gradients with the decay added."""
        return [
            gradient
            if gradient is None or variable.ref() in self._excluded
            else gradient + tf.cast(self._rate, gradient.dtype) * variable
            for gradient, variable in zip(gradients, variables)
        ]


class ClipByGlobalNorm:
    """Scales all gradients by one factor so that their joint Euclidean norm is at most `norm`, positive."""

    def __init__(self, norm: float) -> None:
        self._norm = norm

    def __call__(self, gradients: Gradients, variables: Sequence[tf.Variable]) -> Gradients:
        """Returns the scaled gradients."""
        norm = global_norm(gradients, variables)
        clipped, _ = tf.clip_by_global_norm(gradients, self._norm, use_norm=norm)
        return list(clipped)


class ClipByValue:
    """Limits every component of every gradient to [-value, value]; value is positive."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __call__(self, gradients: Gradients, variables: Sequence[tf.Variable]) -> Gradients:
        """Returns the limited gradients."""
        return [
            None if gradient is None else tf.clip_by_value(gradient, -self._value, self._value)
            for gradient in gradients
        ]
