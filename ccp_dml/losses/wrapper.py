"""What losses around another loss share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from ccp_dml.geometry import check_normalization
from ccp_dml.losses.base import MetricLoss, class_labels
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs


class WrappingLoss(MetricLoss):
    """A loss made of another one, its argument and attribute `base`, which may itself be a wrapper."""

    base: MetricLoss

    def __init__(self, base: MetricLoss, name: str | None = None) -> None:
        """Wraps a loss.

        Args:
            base: the loss inside.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if `base` is no loss of this library, or is already inside a wrapper of this kind.
        """
        super().__init__(name=name)
        kind = type(self).__name__
        if not isinstance(base, PairLoss | WrappingLoss):
            raise ValueError(f"{kind} wraps a loss of ccp_dml.losses; {type(base).__name__} is none")
        if any(type(layer) is type(self) for layer in _layers(base)):
            raise ValueError(f"{kind} is inside {kind}; a loss is wrapped once by each kind of wrapper")
        self.base = base
        self.proxies = base.proxies

    @property
    def core(self) -> PairLoss:
        """The innermost loss, which is around no other."""
        *_, core = _layers(self.base)
        assert isinstance(core, PairLoss)
        return core

    def check_shards(self) -> None:
        """As in the base class."""
        self.core.check_shards()

    def get_config(self) -> dict[str, Any]:
        """Arguments that create a loss of this kind, the base loss serialised."""
        return {**super().get_config(), "base": tf.keras.utils.serialize_keras_object(self.base)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WrappingLoss:
        """Create a loss from what `get_config` returned."""
        return cls(**{**config, "base": tf.keras.utils.deserialize_keras_object(config["base"])})


class ExtendingLoss(WrappingLoss):
    """A wrapper that compares the batch with more than itself.

    It is `pair_weight * base(batch) + w * L(batch against references)`, with L the innermost loss. Around a
    pair loss the first term is that of the pairs of the batch, which the wrapper normalises and mines as its
    own options say; around another wrapper it is the whole of that.

    Attributes:
        pair_weight: weight of the loss inside.
        mine_pairs: whether the miner of L acts on the pairs of the batch.
        pair_normalization: of the pairs of the batch; None is that of L.
    """

    def __init__(
        self,
        base: MetricLoss,
        *,
        pair_weight: float = 1.0,
        mine_pairs: bool = False,
        pair_normalization: str | None = None,
        name: str | None = None,
    ) -> None:
        """Wraps a loss.

        Args:
            base: L, without proxies of its own, or a wrapper of it. The `weight` of L is a factor on both
                terms.
            pair_weight: weight of the pairs of the batch, or of the wrapper inside.
            mine_pairs: let the miner of L act on the pairs of the batch too.
            pair_normalization: normalisation of the pairs of the batch; None is the one of L.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if L is not defined on any pairs or has proxies, or an option is one that the wrapper
                inside has.
        """
        super().__init__(base, name=name)
        if pair_normalization is not None:
            check_normalization(pair_normalization, "pair_normalization")
        self.pair_weight = pair_weight
        self.mine_pairs = mine_pairs
        self.pair_normalization = pair_normalization
        self._check_base()

    def _check_base(self) -> None:
        kind, core = type(self).__name__, self.core
        if not core.pair_based:
            raise ValueError(f"{kind} wraps a pair-based loss; {type(core).__name__} is none")
        if core.proxies is not None or core.shared_proxies:
            raise ValueError(
                f"{kind} brings what samples are compared with, but {type(core).__name__} has "
                f"{core.options.proxies_per_class} proxies per class of its own; expected 0"
            )
        if isinstance(self.base, WrappingLoss) and (self.mine_pairs or self.pair_normalization):
            raise ValueError(
                f"mine_pairs and pair_normalization of {kind} act on the pairs of the batch, which "
                f"{type(self.base).__name__} inside it compares; expected them to be left out"
            )

    def batch_components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """The parts of the first term, weighted; the arguments are those of `parts`."""
        if isinstance(self.base, PairLoss):
            pairs = self._pairs_of_batch(labels, embeddings)
            return {"pair_loss": self.pair_weight * (self.base.options.weight * self.base.formula(pairs))}
        inside = self.base.components(labels, embeddings)
        return {name: self.pair_weight * part for name, part in inside.items()}

    def batch_diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """The diagnostics of the first term; the arguments are those of `diagnostics`."""
        if isinstance(self.base, PairLoss):
            return self.base.describe(self._pairs_of_batch(labels, embeddings), embeddings)
        return self.base.diagnostics(labels, embeddings)

    def _pairs_of_batch(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        return self.core.pairs(
            embeddings, class_labels(labels), normalization=self.pair_normalization, mine=self.mine_pairs
        )


def _layers(loss: MetricLoss) -> Iterator[MetricLoss]:
    """A loss and all that is inside it, outer first."""
    yield loss
    if isinstance(loss, WrappingLoss):
        yield from _layers(loss.base)
