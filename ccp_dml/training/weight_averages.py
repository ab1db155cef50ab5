"""A gradient transform that pulls weights towards, and pushes them off, their own moving averages."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import tensorflow as tf

from ccp_dml.replicas import own_state
from ccp_dml.training.gradient_transforms import Gradients

STARTS = ("weights", "zeros")


class AverageRegularization(tf.Module):
    """Attracts weights to their exponential moving averages from afar, and repels them from close by.

    With d the Euclidean distance of all regularised weights w from their averages a, and n the number of
    their components, it adds the gradient of `attraction / 3 * d^3 + repulsion * n / d`, a being constant:

        a <- decay * a + (1 - decay) * w
        g <- g + (attraction * d^2 - repulsion * n / d^2) * (w - a) / d

    which is 0 at `d = (repulsion * n / attraction)^(1/4)`. Close to w = a the repulsion has no bound: clip
    the norm of the gradients. At w = a nothing says which way to push, and nothing is added. Variables that
    are not regularised (the proxies) or have no gradient are left alone, and so are their averages.

    Attributes:
        averages: float32 variables, one per weight; part of checkpoints.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        *,
        attraction: float = 1e-7,
        repulsion: float = 1e-5,
        decay: float = 0.99,
        start: str = "weights",
        name: str = "average_regularization",
    ) -> None:
        """Creates the averages.

        Args:
            weights: the variables that are regularised, matched by identity.
            attraction: weight of the attractive term, non-negative.
            repulsion: weight of the repulsive term per component, non-negative.
            decay: share of an average that a step keeps, in [0, 1).
            start: what the averages are at first: `'weights'`, the weights as they are now, or `'zeros'`,
                which lie near the origin until about 1 / (1 - decay) steps are made.
            name: name of the module.

        Raises:
            ValueError: if a number is out of its range or `start` is unknown.
        """
        super().__init__(name=name)
        for what, number in (("attraction", attraction), ("repulsion", repulsion)):
            if number < 0:
                raise ValueError(f"{what} is {number}; expected a non-negative number")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; expected a number in [0, 1)")
        if start not in STARTS:
            raise ValueError(f"start is {start!r}; expected one of {', '.join(STARTS)}")
        self._attraction, self._decay = attraction, decay
        self._repulsion = repulsion * sum(weight.shape.num_elements() for weight in weights)
        first = [tf.zeros_like(weight) if start == "zeros" else weight.read_value() for weight in weights]
        self.averages = [own_state(tf.cast(value, tf.float32), name="average") for value in first]
        # A proxy, because a module would try to checkpoint a plain dictionary; of positions, because it would
        # list variables in the order of the keys, which changes from process to process.
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
