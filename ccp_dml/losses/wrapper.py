"""What losses around another loss share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

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

    pair_weight: float
    mine_pairs: bool
    pair_normalization: str | None = None

    def check_base(self) -> None:
        """Raise ValueError unless L is defined on any pairs, and the options are ones that `base` leaves."""
        kind, core = type(self).__name__, self.core
        if not core.pair_based:
            raise ValueError(f"{kind} wraps a pair-based loss; {type(core).__name__} is none")
        if core.proxies is not None or core.shared_proxies:
            raise ValueError(
                f"{kind} brings what samples are compared with, but {type(core).__name__} has "
                f"{core.proxies_per_class} proxies per class of its own; expected 0"
            )
        if isinstance(self.base, WrappingLoss) and (self.mine_pairs or self.pair_normalization):
            raise ValueError(
                f"mine_pairs and pair_normalization of {kind} are of the pairs of the batch, but these are "
                f"the matter of {type(self.base).__name__}, which is inside; expected them to be left out"
            )

    def batch_parts(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """The parts of the first term, weighted; the arguments are those of `parts`."""
        if isinstance(self.base, PairLoss):
            pairs = self._pairs_of_batch(labels, embeddings)
            return {"pair_loss": self.pair_weight * (self.base.weight * self.base.formula(pairs))}
        inside = self.base.parts(labels, embeddings)
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
