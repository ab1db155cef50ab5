"""The base class of all losses: a Keras loss whose variables are tracked."""

from __future__ import annotations

import inspect
from typing import Any

import tensorflow as tf

from ccp_dml.losses.labels import class_labels
from ccp_dml.models.proxies import Proxies


class MetricLoss(tf.keras.losses.Loss, tf.Module):
    """A loss of a batch of embeddings and their labels.

    It is a `tf.keras.losses.Loss`, so `model.compile(loss=...)` takes it, and a `tf.Module`, so its
    variables are in `trainable_variables` and in a `tf.train.Checkpoint(loss=...)`. A functional or
    subclassed model that is compiled with the loss trains and saves them; a `Sequential` cannot, which
    `fit` reports before its first step.

    A subclass implements `components` and `diagnostics`, and keeps each argument of its `__init__` in an
    attribute of the same name.

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

    def __call__(
        self, y_true: tf.Tensor, y_pred: tf.Tensor, sample_weight: tf.Tensor | None = None
    ) -> tf.Tensor:
        """Returns the loss, a float32 scalar; arguments as for `components`.

        Raises:
            ValueError: if there are sample weights, which Keras makes of `class_weight` too, or in `fit` of a
                model that does not train the variables of the loss.
        """
        if sample_weight is not None:
            raise ValueError(
                "sample_weight or class_weight is given; expected neither, as the loss compares samples with "
                "each other (to weigh classes, draw them more or less often)"
            )
        self._check_trained()
        return super().__call__(y_true, y_pred)

    def _check_trained(self) -> None:
        """Raises `ValueError` in `fit` of a model that leaves out trainable variables of this loss."""
        variables = self.trainable_variables
        # Keras tells a loss nothing of the model, and a `Sequential` ignores what its loss has.
        frame = inspect.currentframe() if variables else None
        while frame is not None and frame.f_code is not tf.keras.Model.train_step.__code__:
            frame = frame.f_back
        if frame is None:
            return
        model = frame.f_locals["self"]
        trained = {variable.ref() for variable in model.trainable_variables}
        missing = [variable.name for variable in variables if variable.ref() not in trained]
        if missing:
            raise ValueError(
                f"the model {model.name} does not train {', '.join(missing)} of {type(self).__name__}, as a "
                "Sequential ignores the variables of its loss; expected a functional model, such as "
                "`tf.keras.Model(model.inputs, model.outputs)`, a subclass of `tf.keras.Model`, or a "
                "CCPCallback"
            )

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the sum of `components` for labels `y_true` and embeddings `y_pred`: float32 scalar.

        An empty batch has the loss 0, without what does not depend on the batch.
        """
        total = tf.add_n(list(self.components(y_true, y_pred).values()))
        size = tf.shape(y_pred)[0]
        return total if tf.get_static_value(size) else tf.where(size > 0, total, 0.0)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the named, weighted terms of the loss.

        Args:
            labels: classes [B] or [B, 1], or (class, image id) [B, 2]; integers of any dtype, as for
                `classes`.
            embeddings: float [B, D], raw (not normalised).

        Returns:
            float32 scalars by name.
        """
        raise NotImplementedError

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns figures to monitor. Slower than a step, and not for XLA: shapes depend on the data.

        Args:
            labels: as for `components`.
            embeddings: as for `components`.

        Returns:
            `active_pairs`: the fraction of pairs for which the loss has a gradient, in [0, 1];
            `positive_distances` [n] and `negative_distances` [m]; `embedding_norm`: the mean norm of the raw
            embeddings.
        """
        raise NotImplementedError

    @property
    def trainable_variables(self) -> tuple[tf.Variable, ...]:
        """The trainable variables, the proxies first.

        So their order in a model, by which optimizers are saved, is the same whether the proxies are attached
        to the model or not.
        """
        proxies = [] if self.proxies is None else self.proxies.trainable_variables
        others = super().trainable_variables
        return (*proxies, *(other for other in others if all(other is not mine for mine in proxies)))

    @property
    def label_limit(self) -> int | None:
        """C, if labels have to be class numbers 0..C-1, as with proxies; None if they may be any integers."""
        return None if self.proxies is None else self.proxies.num_classes

    def classes(self, labels: tf.Tensor) -> tf.Tensor:
        """Returns the classes [B] of labels, checked against `label_limit`; see `labels.class_labels`."""
        return class_labels(labels, self.label_limit)

    def check_shards(self) -> None:
        """Raises `ValueError` unless the loss is exact with proxies that are sharded over replicas."""
        raise NotImplementedError

    # Called by Keras for each loss of a compiled model. It finds base losses by itself.

    def save_own_variables(self, store: Any) -> None:
        """Writes the variables of the loss itself, such as proxies and a memory, to a `.keras` file."""
        for name, variable in self._own_variables().items():
            store[name] = variable.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Reads what `save_own_variables` wrote; raises `ValueError` if the file lacks it."""
        variables = self._own_variables()
        if set(variables) - set(store):
            raise ValueError(
                f"the file has no {', '.join(sorted(set(variables) - set(store)))} of {type(self).__name__}; "
                "expected a model whose loss is no attribute of it: `compile(loss=...)` alone keeps it"
            )
        for name, variable in variables.items():
            variable.assign(store[name])

    def get_build_config(self) -> dict[str, Any] | None:
        """Returns the identity of the loss's own proxies in a `.keras` file."""
        return None if self._own_proxies is None else self._own_proxies.saved_table.build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Takes the proxies of the model that is loaded, if they are attached to it."""
        attached = tf.keras.utils.deserialize_keras_object(config["saved_table"]).proxies
        if attached is not None:
            attached.saved_by_loss = True
            self.proxies = attached

    @property
    def _own_proxies(self) -> Proxies | None:
        """The proxies that are saved with this loss: not those of a base loss."""
        return None if self.proxies is getattr(vars(self).get("base"), "proxies", None) else self.proxies

    def _own_variables(self) -> dict[str, tf.Variable]:
        found = {name: value for name, value in vars(self).items() if isinstance(value, tf.Variable)}
        return found if self._own_proxies is None else {**found, "proxies": self._own_proxies.embeddings}

    def _trackable_children(self, save_type: str = "checkpoint", **options: Any) -> dict[str, Any]:
        # Keras makes the loss of a loaded SavedModel anew, with the first values of its variables.
        if save_type == "savedmodel" and self.variables:
            raise ValueError(
                f"a SavedModel cannot hold the variables of the loss {type(self).__name__}; expected the "
                "format `.keras`, or a model without loss: `tf.keras.Model(model.inputs, model.outputs)`"
            )
        return super()._trackable_children(save_type, **options)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that create the same kind of loss."""
        names: set[str] = set()
        for kind in type(self).__mro__:
            if issubclass(kind, MetricLoss) and "__init__" in vars(kind):
                arguments = list(inspect.signature(kind.__init__).parameters.values())[1:]
                names |= {item.name for item in arguments if item.kind is not inspect.Parameter.VAR_KEYWORD}
        return {name: getattr(self, name) for name in sorted(names)}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> MetricLoss:
        """Creates a loss from the result of `get_config`.

        Args:
            config: the result of `get_config`.
            custom_objects: not used; Keras gives it when it reads an `.h5` file.

        Raises:
            ValueError: if Keras reads an `.h5` file, which has no values of the variables of the loss.
        """
        is_h5 = custom_objects is not None
        if not (is_h5 and "base" in config):
            loss = cls(**cls._arguments(config))
            if not (is_h5 and loss.variables):
                return loss
        raise ValueError(
            f"an `.h5` file has no values of the variables of the loss {cls.__name__}; expected the format "
            "`.keras`, or `load_model(..., compile=False)` for the model without loss"
        )

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        """Turns the serialised objects of a configuration into the objects."""
        return config
