"""The base of all losses over pairs: everything but the formula."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, Shards
from ccp_dml.geometry import normalize, pair_masks, pairwise_distances
from ccp_dml.losses.base import MetricLoss, class_labels
from ccp_dml.losses.miners import Miner, make_miner
from ccp_dml.losses.pair_options import PairOptions
from ccp_dml.losses.pairs import Pairs, of_shard, pair_diagnostics, pairs_between
from ccp_dml.models.proxies import Proxies
from ccp_dml.models.sharded_proxies import make_proxies


class PairLoss(MetricLoss):
    """A loss over the pairs of a batch, or over the pairs between a batch and class proxies.

    A subclass implements `sums` (and `combined`, if the loss is not a plain mean), or `formula` if sums over
    anchors do not make the loss, and may narrow the options by the class attributes below.

    Attributes:
        only_distance: the one distance that the formula is defined for; None if it takes any.
        only_proxy_anchor: the one value of `proxy_anchor` that the formula is defined for; None if both.
        pair_based: whether the formula makes sense without proxies; if not, the loss has proxies of its own.
        columns_in_shards: whether the formula combines what it computes of the columns by `Pairs.columns`.
    """

    only_distance: ClassVar[str | None] = None
    only_proxy_anchor: ClassVar[bool | None] = None
    pair_based: ClassVar[bool] = True
    columns_in_shards: ClassVar[bool] = False

    def __init__(self, *, name: str | None = None, **options: Any) -> None:
        """Sets the options.

        Args:
            name: a valid Python identifier; by default made from the class name.
            **options: those of `PairOptions`.

        Raises:
            ValueError: if an option is unknown or the formula is not defined for it.
        """
        super().__init__(name=name)
        kind = type(self)
        self.options = chosen = PairOptions(**options).completed(
            kind.__name__, kind.only_distance, kind.only_proxy_anchor, not kind.pair_based
        )
        self._mined: Miner | None = None if chosen.miner is None else make_miner(chosen.miner, chosen.seed)
        if chosen.proxies_per_class:
            assert chosen.num_classes is not None
            assert chosen.embedding_size is not None
            self.proxies = make_proxies(
                chosen.num_classes,
                chosen.proxies_per_class,
                chosen.embedding_size,
                chosen.proxy_learning_rate_multiplier,
                chosen.shard_proxies,
                chosen.seed,
            )
        if len({proxies.shards.is_single for proxies in self._proxy_sets}) > 1:
            raise ValueError("some sets of proxies are sharded and others are not; expected all or none")

    def formula(self, pairs: Pairs) -> tf.Tensor:
        """The loss of the pairs, before `weight`: float32 scalar."""
        return self.combined(pairs.rows.sums(self.sums(pairs)))

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        """Float32 scalars that make the loss and that add up over blocks of anchors."""
        raise NotImplementedError

    def combined(self, sums: list[tf.Tensor]) -> tf.Tensor:
        """The loss that `sums` make: float32 scalar; the first over the second, unless overridden."""
        total, count = sums
        return tf.math.divide_no_nan(total, count)

    @property
    def in_blocks(self) -> bool:
        """Whether anchors may be taken a block at a time, adding up `sums`."""
        return self.options.miner is None and type(self).sums is not PairLoss.sums

    @property
    def in_shards(self) -> bool:
        """Whether the loss is exact when each replica compares with the proxies of some classes only.

        Anchors in shards are like blocks of anchors; columns in shards are a matter of the formula.
        """
        options = self.options
        by_column = self.columns_in_shards and options.miner is None
        return (self.in_blocks if options.proxy_anchor else by_column) and not options.proxy_pairs

    def check_shards(self) -> None:
        """As in the base class."""
        if not self.in_shards:
            options = self.options
            raise ValueError(
                f"{type(self).__name__} with proxy_anchor={options.proxy_anchor}, miner={options.miner!r} and "
                f"proxy_pairs={options.proxy_pairs} needs the proxies of all classes in one place; expected "
                "shard_proxies to be False, or a loss that docs/scaling.md lists as exact in shards"
            )

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
        """The pairs that the formula sees.

        Args:
            embeddings: float [B, D], raw.
            labels: int32 [B].
            references: float [R, D], raw, such as proxies; None pairs the batch with itself.
            reference_labels: int32 [R].
            ids: int [B], identities of the samples, if those of the references are given.
            reference_ids: int [R]; a sample is no pair with a reference of the same identity.
            normalization: instead of the configured one.
            mine: whether the miner acts.
            shards: of the classes of the references, these being those of one shard; labels below 0 stand for
                no class.

        Raises:
            ValueError: if there are shards and the loss is not exact with them.
        """
        normalization = normalization or self.options.normalization
        if references is None and self.options.references_per_batch:
            cut = self.options.references_per_batch
            references, embeddings = embeddings[:cut], embeddings[cut:]
            reference_labels, labels = labels[:cut], labels[cut:]
        samples = normalize(embeddings, normalization)
        kind, size = str(self.options.distance), samples.shape[-1] or 0
        if references is None or reference_labels is None:
            distances = pairwise_distances(samples, kind=kind)
            pairs = Pairs(distances, *pair_masks(labels), labels, labels, kind, size)
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
            pairs = pairs_between(anchors, others, kind, size)
            if not shards.is_single:
                pairs = of_shard(pairs, shards, bool(self.options.proxy_anchor))
        return self._mined(pairs) if self._mined is not None and mine else pairs

    def compare(
        self,
        embeddings: tf.Tensor,
        labels: tf.Tensor,
        references: tf.Tensor | None = None,
        reference_labels: tf.Tensor | None = None,
        **options: Any,
    ) -> tf.Tensor:
        """The weighted loss of samples against references, or among themselves: float32 scalar.

        The arguments are those of `pairs`.
        """
        pairs = self.pairs(embeddings, labels, references, reference_labels, **options)
        return self.options.weight * self.formula(pairs)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """`{'pair_loss': ...}`, or `{'proxy_loss': ...}` if the loss has proxies; see the base class."""
        name = "proxy_loss" if self._proxy_sets else "pair_loss"
        return {name: self.options.weight * self.formula(self.own_pairs(labels, embeddings))}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """As the base class says; the distances are those of the pairs that the formula sees."""
        return self.describe(self.own_pairs(labels, embeddings), embeddings)

    def describe(self, pairs: Pairs, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """`diagnostics` of given pairs. A pair is active if the loss has a gradient for its distance."""
        return pair_diagnostics(self.formula, pairs, embeddings)

    def own_pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        """The pairs of the loss alone: with its proxies if it has some, else among the batch.

        The arguments are those of `parts`.
        """
        sets = self._proxy_sets
        if not sets:
            return self.pairs(embeddings, class_labels(labels))
        proxies = tf.concat([proxies.embeddings for proxies in sets], axis=0)
        proxy_labels = tf.concat([proxies.labels for proxies in sets], axis=0)
        return self.pairs(embeddings, class_labels(labels), proxies, proxy_labels, shards=sets[0].shards)

    def get_config(self) -> dict[str, Any]:
        """Arguments that create a loss of this kind, shared proxies serialised."""
        shared = [tf.keras.utils.serialize_keras_object(proxies) for proxies in self.options.shared_proxies]
        fields = dataclasses.fields(self.options)
        options = {field.name: getattr(self.options, field.name) for field in fields}
        return {**super().get_config(), **options, "shared_proxies": shared}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PairLoss:
        """Create a loss from what `get_config` returned; what was shared is then proxies of the same size."""
        shared = [tf.keras.utils.deserialize_keras_object(item) for item in config.get("shared_proxies", ())]
        return cls(**{**config, "shared_proxies": shared})

    @property
    def _proxy_sets(self) -> list[Proxies]:
        return [*([] if self.proxies is None else [self.proxies]), *self.options.shared_proxies]
