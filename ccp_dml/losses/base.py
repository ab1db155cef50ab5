"""What every loss of the library is: a Keras loss whose variables are tracked."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from ccp_dml.models.proxies import Proxies


class MetricLoss(tf.keras.losses.Loss, tf.Module):
    """A loss of a batch of embeddings and their labels.

    It is a `tf.keras.losses.Loss`, so `model.compile(loss=...)` takes it, and a `tf.Module`, so its
    variables are in `trainable_variables` and in a `tf.train.Checkpoint(loss=...)`. `fit` trains only what
    the model tracks: attach the proxies to a functional or subclassed model with
    `model.proxies = loss.proxies`, or all that the loss owns with `model.metric_loss = loss`. (A `Sequential`
    does not train what is attached to it.)

    A subclass implements `parts` and `diagnostics`, and stores each argument of its `__init__` under that
    name.

    Attributes:
        proxies: the class proxies that the loss trains; None if it has none.
    """

    proxies: Proxies | None = None

    def __init__(self, name: str | None = None) -> None:
        tf.Module.__init__(self, name=name)
        # Keras' initialiser would set the name again, which a module allows once.
        self.reduction = tf.keras.losses.Reduction.AUTO
        self._allow_sum_over_batch_size = True
        self._set_name_scope()

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Named, weighted terms whose sum is the loss.

        Args:
            labels: [B] or [B, 1], classes; or [B, 2], (class, image id). Integers, in whatever dtype.
            embeddings: float [B, D], raw (not normalised).

        Returns:
            float32 scalars by name.
        """
        raise NotImplementedError

    def check_shards(self) -> None:
        """Raise ValueError unless the loss is exact when the classes of its proxies are sharded."""
        raise NotImplementedError

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Figures to watch, too slow for every step and with shapes that depend on the data (not for XLA).

        Args:
            labels: as for `parts`.
            embeddings: as for `parts`.

        Returns:
            `active_pairs`: the share of pairs that the loss still pulls or pushes, in [0, 1];
            `positive_distances` [n] and `negative_distances` [m]; `embedding_norm`: the mean norm of the raw
            embeddings.
        """
        raise NotImplementedError

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Sum of `parts`: float32 scalar, for labels `y_true` and embeddings `y_pred`."""
        return tf.add_n(list(self.components(y_true, y_pred).values()))

    def get_config(self) -> dict[str, Any]:
        """Arguments that create a loss of this kind."""
        names: set[str] = set()
        for kind in type(self).__mro__:
            if issubclass(kind, MetricLoss) and "__init__" in vars(kind):
                names.update(_keywords(kind))
        return {name: getattr(self, name) for name in sorted(names)}


def class_labels(labels: tf.Tensor) -> tf.Tensor:
    """Classes int32 [B] of labels [B], [B, 1] or [B, 2] = (class, image id), in any dtype.

    Raises:
        ValueError: if the labels have another shape.
    """
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] in (1, 2):
        labels = labels[:, 0]
    if labels.shape.rank != 1:
        raise ValueError(
            f"labels have the shape {labels.shape}; expected [B], [B, 1], or [B, 2] = (class, image id)"
        )
    return tf.cast(labels, tf.int32)


def in_float32(embeddings: tf.Tensor) -> tf.Tensor:
    """Embeddings in float32, for a loss that uses them in several places.

    Cast once, the gradients of all places are added before they are rounded to another dtype.
    """
    return tf.cast(embeddings, tf.float32)


def image_ids(labels: tf.Tensor) -> tf.Tensor | None:
    """Image ids int64 [B] of labels [B, 2] = (class, image id); None for labels without ids."""
    labels = tf.convert_to_tensor(labels)
    if labels.shape.rank == 2 and labels.shape[1] == 2:
        return tf.cast(labels[:, 1], tf.int64)
    return None


def _keywords(kind: type[MetricLoss]) -> list[str]:
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:]
    return [p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD]
