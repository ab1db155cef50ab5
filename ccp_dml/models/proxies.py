"""Class proxies: representatives of the training classes, as weights of a Keras layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, Shards


@tf.keras.utils.register_keras_serializable("ccp_dml")
class SavedTable:
    """The identity of a table of proxies in a `.keras` file.

    Keras writes a layer of a model and the loss of the model as separate objects. By this one, which both
    refer to, they find each other when the model is loaded.

    Attributes:
        proxies: the layer of the model that is loaded; None if it has none.
    """

    proxies: Proxies | None = None

    def get_config(self) -> dict[str, Any]:
        """Returns no arguments: Keras writes the identity beside them."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> SavedTable:
        """Creates an identity without layer."""
        return cls(**config)

    def build_config(self) -> dict[str, Any]:
        """Returns what the layer and the loss write to the file."""
        # Keras marks an object as shared when it meets it the second time.
        tf.keras.utils.serialize_keras_object(self)
        return {"saved_table": tf.keras.utils.serialize_keras_object(self)}


@tf.keras.utils.register_keras_serializable("ccp_dml")
class Proxies(tf.keras.layers.Layer):
    """K trainable proxies for each of C classes.

    The proxies are raw (not normalised) vectors in float32 under every precision policy. Row `k * C + c` of
    `embeddings` is the k-th proxy of class c. The variable exists as soon as the layer does.

    The table may be sharded over replicas, see `ShardedProxies`. The methods below then refer to the shards
    of this process; here there is one shard, the whole table.

    Attributes:
        embeddings: float32 variable [C * K, D].
        num_classes: C, at least 1.
        proxies_per_class: K, at least 1.
        embedding_size: D, at least 1.
        learning_rate_multiplier: non-negative factor on the learning rate of the proxies, for optimizers that
            know multipliers.
        shards: combines results over the classes of this shard with those of the other shards.
        saved_by_loss: True if a loss owns the proxies and reads them from `.keras` files.

    Example:
        >>> proxies = Proxies(num_classes=3, proxies_per_class=2, embedding_size=4)
        >>> proxies.labels.numpy().tolist()
        [0, 1, 2, 0, 1, 2]
        >>> proxies.reset(tf.ones([2, 3, 4]))
        >>> float(tf.reduce_sum(proxies.embeddings))
        24.0
    """

    shards: Shards = SINGLE_SHARD
    saved_by_loss: bool = False

    def __init__(
        self,
        num_classes: int,
        proxies_per_class: int,
        embedding_size: int,
        learning_rate_multiplier: float = 1.0,
        initializer: Any = "he_normal",
        **kwargs: Any,
    ) -> None:
        """Creates the proxies.

        Args:
            num_classes: number of classes C.
            proxies_per_class: number of proxies K of each class.
            embedding_size: number of dimensions D.
            learning_rate_multiplier: factor on the learning rate of the proxies.
            initializer: Keras initializer, or its name, of the [C * K, D] matrix.
            **kwargs: `name` and `trainable` of a Keras layer.

        Raises:
            ValueError: if a size is below 1 or the multiplier is negative.
        """
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        sizes = {
            "num_classes": num_classes,
            "proxies_per_class": proxies_per_class,
            "embedding_size": embedding_size,
        }
        for name, size in sizes.items():
            if size < 1:
                raise ValueError(f"{name} of the proxies is {size}; expected at least 1")
        if learning_rate_multiplier < 0:
            raise ValueError(
                f"learning_rate_multiplier of the proxies is {learning_rate_multiplier}; expected at least 0"
            )
        self.num_classes = num_classes
        self.proxies_per_class = proxies_per_class
        self.embedding_size = embedding_size
        self.learning_rate_multiplier = learning_rate_multiplier
        self.initializer = tf.keras.initializers.get(initializer)
        self.embeddings: tf.Variable = self._make_table()
        self.saved_table = SavedTable()
        self.built = True

    @property
    def labels(self) -> tf.Tensor:
        """Class of each row of `embeddings`: int32 [C * K], 0..C-1 repeated K times."""
        return tf.tile(tf.range(self.num_classes, dtype=tf.int32), [self.proxies_per_class])

    @property
    def by_class(self) -> tf.Tensor:
        """The proxies as float32 [K, C, D]."""
        return tf.reshape(self.embeddings, [self.proxies_per_class, -1, self.embedding_size])

    def of_classes(self, classes: tf.Tensor) -> tf.Tensor:
        """Looks up the proxies of classes int32 [B]: float32 [K, B, D]."""
        return tf.gather(self.by_class, classes, axis=1)

    def get_build_config(self) -> dict[str, Any]:
        """Returns the identity of the table in a `.keras` file."""
        return self.saved_table.build_config()

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Announces the layer to the loss that is loaded after it."""
        self.saved_table = tf.keras.utils.deserialize_keras_object(config["saved_table"])
        self.saved_table.proxies = self

    def load_own_variables(self, store: Any) -> None:
        """Reads the table from a `.keras` file, unless a loss does."""
        if len(store) or not self.saved_by_loss:
            super().load_own_variables(store)

    def reset(self, embeddings: tf.Tensor) -> None:
        """Replaces all proxies.

        Args:
            embeddings: [K, C, D], cast to float32; `embeddings[k, c]` becomes row `k * C + c`.

        Raises:
            ValueError: if the shape is not [K, C, D].
        """
        self._assign(tf.reshape(self._checked(embeddings), self.embeddings.shape))

    @property
    def classes_here(self) -> list[range]:
        """The classes of each shard of this process."""
        return [range(self.num_classes)]

    @property
    def all_here(self) -> bool:
        """True if this process holds all classes."""
        return True

    def shards_of(self, variable: tf.Variable) -> list[tf.Tensor]:
        """Splits the table, or a copy of it, into the shards of this process: float32 [K, n, D] each."""
        return [tf.reshape(variable, [self.proxies_per_class, -1, self.embedding_size])]

    def rows_of(self, variable: tf.Variable, rows: tf.Tensor) -> tf.Tensor:
        """Gathers rows int64 [n] of the table, or of a copy of it: float32 [n, D]."""
        return tf.gather(variable, rows)

    def reset_shards(self, shards: Sequence[tf.Tensor]) -> None:
        """Replaces the proxies of each shard of this process.

        Args:
            shards: float32 [K, n, D] for the n classes of each of `classes_here`.
        """
        [embeddings] = shards
        self.reset(embeddings)

    def whole(self) -> tf.Tensor:
        """Returns all proxies, float32 [K, C, D]; to be called outside of replica context."""
        return self.by_class

    def _checked(self, embeddings: tf.Tensor) -> tf.Tensor:
        """Casts new proxies to float32 [K, C, D]."""
        expected = [self.proxies_per_class, self.num_classes, self.embedding_size]
        embeddings = tf.cast(embeddings, tf.float32)
        if not embeddings.shape.is_compatible_with(expected):
            raise ValueError(
                f"new proxies have the shape {embeddings.shape}; expected [K, C, D] = {expected}"
            )
        return embeddings

    def _make_table(self) -> tf.Variable:
        return self.add_weight(
            name="embeddings",
            shape=(self.num_classes * self.proxies_per_class, self.embedding_size),
            initializer=self.initializer,
        )

    @tf.function
    def _assign(self, rows: tf.Tensor) -> None:
        self.embeddings.assign(rows)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the layer, which do not include the values of the proxies."""
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "proxies_per_class": self.proxies_per_class,
            "embedding_size": self.embedding_size,
            "learning_rate_multiplier": self.learning_rate_multiplier,
            "initializer": tf.keras.initializers.serialize(self.initializer),
        }
