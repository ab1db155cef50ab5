"""The base of all losses over pairs: everything but the formula."""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from ccp_dml.geometry.distances import check_distance, pairwise_distances
from ccp_dml.geometry.normalization import check_normalization, normalize
from ccp_dml.geometry.pair_masks import pair_masks
from ccp_dml.losses.base import MetricLoss, class_labels
from ccp_dml.losses.miners import MINERS
from ccp_dml.losses.pairs import AVERAGES, Pairs
from ccp_dml.models.proxies import Proxies


class PairLoss(MetricLoss):
    """A loss over the pairs of a batch, or over the pairs between a batch and class proxies.

    A subclass implements `formula` and may narrow the options by the class attributes below.

    Attributes:
        only_distance: the one distance that the formula is defined for; None if it takes any.
        only_proxy_anchor: the one value of `proxy_anchor` that the formula is defined for; None if both.
        pair_based: whether the formula makes sense without proxies; if not, the loss has proxies of its own.
    """

    only_distance: ClassVar[str | None] = None
    only_proxy_anchor: ClassVar[bool | None] = None
    pair_based: ClassVar[bool] = True

    def __init__(
        self,
        *,
        normalization: str = "lipschitz",
        distance: str | None = None,
        average: str = "active",
        miner: str | None = None,
        weight: float = 1.0,
        proxies_per_class: int | None = None,
        num_classes: int | None = None,
        embedding_size: int | None = None,
        proxy_anchor: bool | None = None,
        proxy_pairs: bool = False,
        proxy_learning_rate_multiplier: float = 1.0,
        references_per_batch: int = 0,
        name: str | None = None,
    ) -> None:
        """Sets the options that all pair losses share.

        Args:
            normalization: of embeddings and proxies, `'lipschitz'`, `'unit'` or `'none'`.
            distance: `'euclidean'` (the default), `'squared_euclidean'` or `'cosine'`.
            average: `'active'`, over the terms that are not zero, or `'all'`, over the whole matrix.
            miner: `'hard_negatives'`, or None for all negatives.
            weight: factor on the loss.
            proxies_per_class: number of proxies that the loss itself trains; 0 (the default unless the
                formula needs proxies, then 1) for a loss over the batch alone.
            num_classes: number of training classes; needed with proxies.
            embedding_size: dimension of the embeddings; needed with proxies.
            proxy_anchor: whether proxies, not samples, are the anchors.
            proxy_pairs: whether proxies are also paired with each other (each with itself, too).
            proxy_learning_rate_multiplier: factor on the learning rate of the proxies.
            references_per_batch: if positive, the first so many samples of the batch are the references (like
                proxies), and the others are compared with them.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if an option is unknown or the formula is not defined for it.
        """
        super().__init__(name=name)
        self.normalization = normalization
        self.distance = self._narrowed("distance", distance, self.only_distance, "euclidean")
        self.proxy_anchor = self._narrowed("proxy_anchor", proxy_anchor, self.only_proxy_anchor, False)
        self.average = average
        self.miner = miner
        self.weight = weight
        self.proxies_per_class = int(not self.pair_based) if proxies_per_class is None else proxies_per_class
        self.num_classes = num_classes
        self.embedding_size = embedding_size
        self.proxy_pairs = proxy_pairs
        self.proxy_learning_rate_multiplier = proxy_learning_rate_multiplier
        self.references_per_batch = references_per_batch
        self._check()
        if self.proxies_per_class:
            assert num_classes is not None
            assert embedding_size is not None
            self.proxies = Proxies(
                num_classes, self.proxies_per_class, embedding_size, proxy_learning_rate_multiplier
            )

    def formula(self, pairs: Pairs) -> tf.Tensor:
        """The loss of the pairs, before `weight`: float32 scalar."""
        raise NotImplementedError

    def pairs(
        self,
        embeddings: tf.Tensor,
        labels: tf.Tensor,
        references: tf.Tensor | None = None,
        reference_labels: tf.Tensor | None = None,
        *,
        normalization: str | None = None,
        mine: bool = True,
    ) -> Pairs:
        """The pairs that the formula sees.

        Args:
            embeddings: float [B, D], raw.
            labels: int32 [B].
            references: float [R, D], raw, such as proxies; None pairs the batch with itself.
            reference_labels: int32 [R].
            normalization: instead of the configured one.
            mine: whether the miner acts.
        """
        normalization = normalization or self.normalization
        if references is None and self.references_per_batch:
            cut = self.references_per_batch
            references, embeddings = embeddings[:cut], embeddings[cut:]
            reference_labels, labels = labels[:cut], labels[cut:]
        samples = normalize(embeddings, normalization)
        if references is None or reference_labels is None:
            distances = pairwise_distances(samples, kind=self.distance)
            pairs = Pairs(distances, *pair_masks(labels), labels, labels)
        else:
            rows = normalize(references, normalization)
            if self.proxy_pairs:
                samples = tf.concat([samples, rows], axis=0)
                labels = tf.concat([labels, reference_labels], axis=0)
            distances = pairwise_distances(rows, samples, self.distance)
            masks = pair_masks(reference_labels, labels)
            pairs = Pairs(distances, *masks, reference_labels, labels)
            pairs = pairs if self.proxy_anchor else pairs.transposed
        return MINERS[self.miner](pairs) if self.miner and mine else pairs

    def compare(
        self,
        embeddings: tf.Tensor,
        labels: tf.Tensor,
        references: tf.Tensor | None = None,
        reference_labels: tf.Tensor | None = None,
        *,
        normalization: str | None = None,
        mine: bool = True,
    ) -> tf.Tensor:
        """The weighted loss of samples against references, or among themselves: float32 scalar.

        The arguments are those of `pairs`.
        """
        pairs = self.pairs(
            embeddings, labels, references, reference_labels, normalization=normalization, mine=mine
        )
        return self.weight * self.formula(pairs)

    def parts(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """`{'pair_loss': ...}`, or `{'proxy_loss': ...}` if the loss has proxies; see the base class."""
        name = "pair_loss" if self.proxies is None else "proxy_loss"
        return {name: self.weight * self.formula(self._own_pairs(labels, embeddings))}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """As the base class says; the distances are those of the pairs that the formula sees."""
        return self.describe(self._own_pairs(labels, embeddings), embeddings)

    def describe(self, pairs: Pairs, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """`diagnostics` of given pairs. A pair is active if the loss has a gradient for its distance."""
        with tf.GradientTape() as tape:
            tape.watch(pairs.distances)
            loss = self.formula(pairs)
        gradient = tape.gradient(loss, pairs.distances, unconnected_gradients="zero")
        counted = tf.cast(pairs.positives | pairs.negatives, tf.float32)
        active = tf.cast(tf.not_equal(gradient, 0.0), tf.float32) * counted
        return {
            "active_pairs": tf.math.divide_no_nan(tf.reduce_sum(active), tf.reduce_sum(counted)),
            "positive_distances": tf.boolean_mask(pairs.distances, pairs.positives),
            "negative_distances": tf.boolean_mask(pairs.distances, pairs.negatives),
            "embedding_norm": tf.reduce_mean(tf.norm(tf.cast(embeddings, tf.float32), axis=-1)),
        }

    def _own_pairs(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        if self.proxies is None:
            return self.pairs(embeddings, class_labels(labels))
        return self.pairs(embeddings, class_labels(labels), self.proxies.embeddings, self.proxies.labels)

    def _narrowed(self, option: str, asked: Any, only: Any, default: Any) -> Any:
        if only is not None and asked not in (None, only):
            raise ValueError(
                f"{option} of {type(self).__name__} is {asked!r}; it is defined for {only!r} only"
            )
        if asked is not None:
            return asked
        return default if only is None else only

    def _check(self) -> None:
        check_normalization(self.normalization)
        check_distance(self.distance)
        if self.average not in AVERAGES:
            raise ValueError(f"average is {self.average!r}; expected one of {', '.join(AVERAGES)}")
        if self.miner is not None and self.miner not in MINERS:
            raise ValueError(f"miner is {self.miner!r}; expected None or one of {', '.join(MINERS)}")
        if self.references_per_batch < 0 or (self.references_per_batch and self.proxies_per_class):
            raise ValueError(
                f"references_per_batch is {self.references_per_batch} beside {self.proxies_per_class} "
                "proxies per class; expected 0, or a positive number without proxies"
            )
        if self.proxies_per_class < int(not self.pair_based):
            raise ValueError(
                f"proxies_per_class of {type(self).__name__} is {self.proxies_per_class}; "
                f"expected at least {int(not self.pair_based)}"
            )
        if self.proxies_per_class and (self.num_classes is None or self.embedding_size is None):
            raise ValueError(
                f"proxies_per_class is {self.proxies_per_class}, but num_classes is {self.num_classes} and "
                f"embedding_size is {self.embedding_size}; proxies need both"
            )
