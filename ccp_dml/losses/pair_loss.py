"""The base class of losses over pairs: everything but the formula.

A subclass adds a formula. It states the pairs as matrices [A, S], a row for each anchor and a column for each
sample, and returns sums over all pairs:

    @tf.keras.utils.register_keras_serializable("ccp_dml")
    class SquaredDistance(PairLoss):
        def __init__(self, push: float = 0.1, **options: Any) -> None:
            super().__init__(**options)
            self.push = push

        def sums(self, pairs: Pairs) -> list[tf.Tensor]:
            signs = tf.where(pairs.positives, 1.0, tf.where(pairs.negatives, -self.push, 0.0))
            return [tf.reduce_sum(signs * tf.square(pairs.distances)), pairs.anchor_count]

The loss is the first sum divided by the second. That is all: normalisation, distances, proxies, miners,
checkpoints, `get_config`, and the wrappers work for it. An entry in `specs` makes it a value of `--loss`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, Shards
from ccp_dml.geometry import normalize
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.miners import make_miner
from ccp_dml.losses.options import PairOptions
from ccp_dml.losses.pairs import Pairs, pairs_between, pairs_within
from ccp_dml.models.proxies import Proxies
from ccp_dml.models.sharded_proxies import make_proxies


class PairLoss(MetricLoss):
    """A loss over the pairs of a batch, or over the pairs of a batch with class proxies.

    A subclass implements `sums`, and `combined` if the loss is not the first sum over the second. A formula
    that is not made of sums over anchors overrides `formula` instead. Class attributes restrict the options:

    Attributes:
        only_distance: the only distance that the formula is defined for; None if it takes any.
        only_proxy_anchor: the only value of `proxy_anchor` that the formula is defined for; None for both.
        pair_based: False if the formula needs proxies; the loss then has one per class by default.
        columns_in_shards: True if the formula combines its results over columns by `Pairs.columns`, which
            makes it exact with proxies that are sharded over replicas.
        options: the options that all pair losses share, complete.
        proxies: the proxies that the loss trains; None if it has none.
    """

    only_distance: ClassVar[str | None] = None
    only_proxy_anchor: ClassVar[bool | None] = None
    pair_based: ClassVar[bool] = True
    columns_in_shards: ClassVar[bool] = False

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        shared_proxies: Sequence[Proxies] = (),
        shard_proxies: bool = False,
        seed: int = 0,
        name: str | None = None,
        **options: Any,
    ) -> None:
        """Creates the loss, and its proxies if it has some.

        Args:
            num_classes: number of training classes; required with proxies.
            embedding_size: dimension of the embeddings; required with proxies.
            shared_proxies: further sets of proxies, for example the proxies of another loss.
            shard_proxies: spread the classes of the proxies over the replicas of the strategy in scope.
            seed: seed of a miner that draws, and of sharded proxies.
            name: a valid Python identifier; by default made from the class name.
            **options: options of `PairOptions`.

        Raises:
            ValueError: if an option is invalid, or the formula is not defined for it.
        """
        super().__init__(name=name)
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.shared_proxies = tuple(shared_proxies)
        self.shard_proxies = shard_proxies
        self.seed = seed
        self.options = self._complete(PairOptions(**options))
        self._miner = None if self.options.miner is None else make_miner(self.options.miner, seed)
        if self.options.proxies_per_class:
            self.proxies = self._make_proxies(self.options.proxies_per_class)
        if len({proxies.shards.is_single for proxies in self._proxy_sets}) > 1:
            raise ValueError("some sets of proxies are sharded and others are not; expected all or none")

    # The formula, for subclasses to implement.

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Returns float32 scalars that add up over blocks of anchors, and from which the loss follows."""
        raise NotImplementedError

    def combined(self, sums: list[tf.Tensor]) -> tf.Tensor:
        """Returns the loss that follows from `sums`: the first over the second, unless overridden."""
        total, count = sums
        return tf.math.divide_no_nan(total, count)

    def formula(self, pairs: Pairs) -> tf.Tensor:
        """Returns the loss of the pairs, before `weight`: float32 scalar."""
        return self.combined(pairs.rows.sums(self.sums(pairs)))

    # The loss of a batch.

    @property
    def label_limit(self) -> int | None:
        """The largest number of classes of a set of proxies; see the base class."""
        return max((proxies.num_classes for proxies in self._proxy_sets), default=None)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `{'pair_loss': ...}`, or `{'proxy_loss': ...}` if there are proxies; see the base class."""
        name = "proxy_loss" if self._proxy_sets else "pair_loss"
        return {name: self.options.weight * self.formula(self.batch_pairs(labels, embeddings))}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Describes the pairs that the formula sees; see the base class."""
        return self.describe(self.batch_pairs(labels, embeddings), embeddings)

    def batch_pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        """Pairs a batch with the proxies, or with itself if there are none; arguments as in `components`."""
        sets = self._proxy_sets
        if not sets:
            return self.pairs(embeddings, self.classes(labels))
        proxies = tf.concat([proxies.embeddings for proxies in sets], axis=0)
        proxy_labels = tf.concat([proxies.labels for proxies in sets], axis=0)
        return self.pairs(embeddings, self.classes(labels), proxies, proxy_labels, shards=sets[0].shards)

    # For wrappers: other references, another normalisation, given pairs.

    def pairs(
        self,
        embeddings: tf.Tensor,
        labels: tf.Tensor,
        references: tf.Tensor | None = None,
        reference_labels: tf.Tensor | None = None,
        *,
        ids: tf.Tensor | None = None,
        reference_ids: tf.Tensor | None = None,
        normalization: str | None = None,
        mine: bool = True,
        shards: Shards = SINGLE_SHARD,
    ) -> Pairs:
        """Pairs samples with references, or with each other.

        Args:
            embeddings: float [B, D], raw.
            labels: int [B].
            references: float [R, D], raw, such as proxies; None pairs the samples with each other.
            reference_labels: int [R], of the same dtype.
            ids: int [B], image ids of the samples.
            reference_ids: int [R]; a sample and a reference of the same image are not a positive pair.
            normalization: replaces the one of the options.
            mine: False keeps the negatives that the miner would drop.
            shards: the shards of the references, if these are one of several; labels below 0 mark rows
                without a class.

        Raises:
            ValueError: if there are shards and the loss is not exact with them.
        """
        normalization, distance = normalization or self.options.normalization, str(self.options.distance)
        if references is None and self.options.references_per_batch:
            cut = self.options.references_per_batch
            references, embeddings = embeddings[:cut], embeddings[cut:]
            reference_labels, labels = labels[:cut], labels[cut:]
        samples = normalize(embeddings, normalization)
        if references is None or reference_labels is None:
            pairs = pairs_within(samples, labels, distance)
        else:
            rows = normalize(references, normalization)
            if not shards.is_single:
                self.check_shards()
                samples = shards.enter(samples)
            if self.options.proxy_pairs:
                samples = tf.concat([samples, rows], axis=0)
                labels = tf.concat([labels, reference_labels], axis=0)
            anchors, others = (samples, labels, ids), (rows, reference_labels, reference_ids)
            if self.options.proxy_anchor:
                anchors, others = others, anchors
            pairs = pairs_between(anchors, others, distance, shards, bool(self.options.proxy_anchor))
        return self._miner(pairs) if self._miner is not None and mine else pairs

    def compare(
        self,
        embeddings: tf.Tensor,
        labels: tf.Tensor,
        references: tf.Tensor,
        reference_labels: tf.Tensor,
        shards: Shards = SINGLE_SHARD,
    ) -> tf.Tensor:
        """Returns the weighted loss of samples against references: float32 scalar; see `pairs`."""
        pairs = self.pairs(embeddings, labels, references, reference_labels, shards=shards)
        return self.options.weight * self.formula(pairs)

    def describe(self, pairs: Pairs, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the figures of `diagnostics` for given pairs and raw embeddings [B, D].

        A pair is active if the loss has a gradient for its distance.
        """
        with tf.GradientTape() as tape:
            tape.watch(pairs.distances)
            loss = self.formula(pairs)
        gradient = tape.gradient(loss, pairs.distances, unconnected_gradients="zero")
        counted = tf.cast(pairs.positives | pairs.negatives, tf.float32)
        active = tf.cast(tf.not_equal(gradient, 0.0), tf.float32) * counted
        totals = pairs.shards.sums([tf.reduce_sum(active), tf.reduce_sum(counted)])
        return {
            "active_pairs": tf.math.divide_no_nan(*totals),
            "positive_distances": pairs.shards.gather(tf.boolean_mask(pairs.distances, pairs.positives)),
            "negative_distances": pairs.shards.gather(tf.boolean_mask(pairs.distances, pairs.negatives)),
            "embedding_norm": tf.reduce_mean(tf.norm(tf.cast(embeddings, tf.float32), axis=-1)),
        }

    # Blocks of anchors, and shards of proxies.

    @property
    def in_blocks(self) -> bool:
        """True if the loss can be computed a block of anchors at a time, adding up `sums`."""
        return self.options.miner is None and type(self).sums is not PairLoss.sums

    @property
    def in_shards(self) -> bool:
        """True if the loss is exact when each replica holds the proxies of some classes only.

        Shards of anchors are like blocks of anchors. With shards of columns, the formula has to combine.
        """
        options = self.options
        by_column = self.columns_in_shards and options.miner is None
        return (self.in_blocks if options.proxy_anchor else by_column) and not options.proxy_pairs

    def check_shards(self) -> None:
        """Raises `ValueError` unless the loss is exact with sharded proxies."""
        if not self.in_shards:
            options = self.options
            raise ValueError(
                f"{type(self).__name__} with proxy_anchor={options.proxy_anchor}, miner={options.miner!r} "
                f"and proxy_pairs={options.proxy_pairs} needs the proxies of all classes in one place; "
                "expected shard_proxies to be False, or a loss that docs/scaling.md lists as exact in shards"
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the loss; shared proxies are given by their sizes."""
        shared = [tf.keras.utils.serialize_keras_object(proxies) for proxies in self.shared_proxies]
        return {**super().get_config(), **dataclasses.asdict(self.options), "shared_proxies": shared}

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        # New proxies take the place of shared ones.
        shared = [tf.keras.utils.deserialize_keras_object(item) for item in config.get("shared_proxies", ())]
        return {**config, "shared_proxies": shared}

    def _complete(self, options: PairOptions) -> PairOptions:
        """Fills in the values that depend on the formula, and checks that it is defined for the others."""
        per_class = options.proxies_per_class
        if per_class is None:
            per_class = int(not self.pair_based)
        if not self.pair_based and per_class == 0:
            raise ValueError(f"proxies_per_class of {type(self).__name__} is 0; expected at least 1")
        if options.references_per_batch and (per_class or self.shared_proxies):
            raise ValueError(
                f"references_per_batch is {options.references_per_batch} with {per_class} proxies per "
                f"class and {len(self.shared_proxies)} shared sets; expected 0, or a loss without proxies"
            )
        return dataclasses.replace(
            options,
            distance=self._only("distance", options.distance, self.only_distance, "euclidean"),
            proxy_anchor=self._only("proxy_anchor", options.proxy_anchor, self.only_proxy_anchor, False),
            proxies_per_class=per_class,
        )

    def _only(self, name: str, value: Any, only: Any, default: Any) -> Any:
        """Returns the value of an option, given the only value that the formula may be defined for."""
        if only is not None and value not in (None, only):
            raise ValueError(f"{name} of {type(self).__name__} is {value!r}; it is defined for {only!r} only")
        if value is not None:
            return value
        return default if only is None else only

    def _make_proxies(self, proxies_per_class: int) -> Proxies:
        if self.num_classes is None or self.embedding_size is None:
            raise ValueError(
                f"proxies_per_class is {proxies_per_class}, but num_classes is {self.num_classes} and "
                f"embedding_size is {self.embedding_size}; proxies need both"
            )
        return make_proxies(
            self.num_classes,
            proxies_per_class,
            self.embedding_size,
            self.options.proxy_learning_rate_multiplier,
            self.shard_proxies,
            self.seed,
        )

    @property
    def _proxy_sets(self) -> list[Proxies]:
        return [*([] if self.proxies is None else [self.proxies]), *self.shared_proxies]
