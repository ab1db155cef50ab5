"""Alternating projections in `fit` of any Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.projections import AlternatingProjections, sample_draws


class CCPCallback(tf.keras.callbacks.Callback):
    """Chooses new proxies from embeddings of training samples, and ties the weights to the last solution.

    The problem instances are those of `AlternatingProjections`, judged at the end of each epoch by a score in
    the logs, such as those of a `RetrievalMetrics` callback before it. The proximal term is a loss of the
    model, so the logged `loss` includes it.

    Gürbüz, Can and Alatan, Deep Metric Learning with Chance Constraints, 2022 (arXiv 2209.09060).

    Example:
        >>> images, labels = np.random.default_rng(0).random([60, 8], np.float32), np.repeat(np.arange(6), 10)
        >>> loss = ccp_dml.losses.CCP(ccp_dml.losses.Contrastive(), num_classes=6, embedding_size=4)
        >>> model = tf.keras.Sequential([tf.keras.layers.Dense(4)])
        >>> model.compile(optimizer="adam", loss=loss)
        >>> options = ProjectionOptions(ccp_monitor="loss")
        >>> callback = CCPCallback(loss, images, labels, options)
        >>> history = model.fit(images, labels, epochs=3, verbose=0, callbacks=[callback])
        >>> history.history["problem_instance"]
        [1, 2, 3]

    Attributes:
        projections: the state; put it into a `tf.train.Checkpoint` to continue a run. None before `fit`.
    """

    def __init__(
        self,
        loss: MetricLoss,
        samples: Any,
        labels: npt.ArrayLike,
        options: ProjectionOptions | None = None,
        *,
        batch_size: int = 128,
        seed: int = 0,
    ) -> None:
        """Keeps the training data; the model is known when `fit` begins.

        Args:
            loss: the loss that the model is compiled with; its proxies are replaced.
            samples: inputs of the model without augmentation, [N, ...]: an array, or a sequence of arrays.
            labels: integers [N] in 0..C-1; every class has a sample.
            options: when an instance ends, and how proxies are chosen. None: new proxies after every epoch,
                whatever the scores.
            batch_size: samples that are embedded at once, at least 1.
            seed: seed of the draws of samples.

        Raises:
            ValueError: if the loss has no proxies, or the labels do not fit the samples or the loss.
        """
        super().__init__()
        self.projections: AlternatingProjections | None = None
        self._options = options or ProjectionOptions()
        sample_draws(loss, samples, labels, self._options, seed)  # Raises errors before training.
        self._loss, self._samples, self._labels = loss, samples, labels
        self._batch_size, self._seed = batch_size, seed

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Attaches the loss and the proximal term to the model, and chooses the first proxies."""
        if self.projections is not None:
            return
        self.projections = AlternatingProjections.of_model(
            self.model,
            self._loss,
            self._samples,
            self._labels,
            self._options,
            batch_size=self._batch_size,
            seed=self._seed,
        )
        self._attach_loss()
        self._attach_proximal_term(self.projections)
        # A step that was traced before knows neither proxies nor proximal term.
        self.model.train_function = self.model.make_train_function(force=True)
        self.projections.begin()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Judges the instance by the monitored score, and adds `problem_instance` to the logs."""
        assert self.projections is not None
        logs = {} if logs is None else logs
        if self._options.ccp_reset_rule == "fixed":
            self.projections.update(0.0)
        else:
            self.projections.after_validation(epoch, logs)
        logs.update(self.projections.logs)

    def _attach_loss(self) -> None:
        """Lets the model train the variables of the loss."""
        variables = {variable.ref() for variable in self._loss.trainable_variables}
        if not variables <= {variable.ref() for variable in self.model.trainable_variables}:
            # Not to the model itself: a `Sequential` forgets attributes when it meets another batch size.
            self.model.layers[-1].proxies = self._loss.proxies
        if not variables <= {variable.ref() for variable in self.model.trainable_variables}:
            raise ValueError(
                f"the model {self.model.name} does not train the proxies of {type(self._loss).__name__}; "
                "expected the model or one of its layers to hold the loss as an attribute"
            )

    def _attach_proximal_term(self, projections: AlternatingProjections) -> None:
        def proximal_term() -> tf.Tensor:
            squares = [
                tf.reduce_sum(tf.math.squared_difference(weight, tf.stop_gradient(anchor)))
                for weight, anchor in zip(projections.weights, projections.anchors)
            ]
            return 0.5 * projections.proximal_coefficient * tf.add_n(squares)

        self.model.add_loss(proximal_term)
