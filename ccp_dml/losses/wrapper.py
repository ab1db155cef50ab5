"""The base classes of wrappers, which are losses around another loss.

A wrapper has the loss inside as its argument and attribute `base`, which may be a wrapper too. The innermost
loss, always a `PairLoss`, is `core`.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.geometry import check_normalization
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs


class WrappingLoss(MetricLoss):
    """A loss around another one.

    Attributes:
        base: the loss inside, which may be a wrapper.
        proxies: the proxies of `base`, unless the wrapper has its own.
    """

    def __init__(self, base: MetricLoss, name: str | None = None) -> None:
        """Wraps a loss.

        Args:
            base: a `PairLoss`, or a wrapper of another kind.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if `base` is not a loss of this library, or has a wrapper of the same kind inside.
        """
        super().__init__(name=name)
        kind = type(self).__name__
        if not isinstance(base, PairLoss | WrappingLoss):
            raise ValueError(f"{kind} wraps a loss of ccp_dml.losses; {type(base).__name__} is none")
        inside: MetricLoss = base
        while isinstance(inside, WrappingLoss):
            if type(inside) is type(self):
                raise ValueError(f"{kind} is inside {kind}; expected each kind of wrapper once")
            inside = inside.base
        self.base: MetricLoss = base
        self.proxies = base.proxies

    @property
    def core(self) -> PairLoss:
        """The innermost loss."""
        base = self.base
        while isinstance(base, WrappingLoss):
            base = base.base
        assert isinstance(base, PairLoss)
        return base

    @property
    def label_limit(self) -> int | None:
        """The number of classes of the proxies, or the limit of the loss inside; see the base class."""
        return super().label_limit or self.base.label_limit

    def check_shards(self) -> None:
        """Raises `ValueError` unless the innermost loss is exact with sharded proxies."""
        self.core.check_shards()

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that create the same kind of loss, with the base loss serialised."""
        return {**super().get_config(), "base": tf.keras.utils.serialize_keras_object(self.base)}

    @classmethod
    def _arguments(cls, config: dict[str, Any]) -> dict[str, Any]:
        return {**config, "base": tf.keras.utils.deserialize_keras_object(config["base"])}


class ExtendingLoss(WrappingLoss):
    """A wrapper that compares the batch with further references, such as proxies or a memory.

    With L the innermost loss, it is `pair_weight * base(batch) + w * L(batch against references)`. Directly
    around L, the first term is L on the pairs of the batch, normalised and mined as the options below say;
    around another wrapper it is the loss of that wrapper.
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
            pair_weight: weight of the first term.
            mine_pairs: True lets the miner of L act on the pairs of the batch, too.
            pair_normalization: normalisation of the pairs of the batch; None for the one of L.
            name: a valid Python identifier; by default made from the class name.

        Raises:
            ValueError: if L needs or has proxies, or `mine_pairs` or `pair_normalization` is set around
                another wrapper.
        """
        super().__init__(base, name=name)
        if pair_normalization is not None:
            check_normalization(pair_normalization, "pair_normalization")
        self.pair_weight = pair_weight
        self.mine_pairs = mine_pairs
        self.pair_normalization = pair_normalization
        self._check_base()

    def batch_components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the weighted components of the first term; arguments as in `components`."""
        if isinstance(self.base, PairLoss):
            loss = self.base.formula(self._pairs_within_batch(labels, embeddings))
            return {"pair_loss": self.pair_weight * (self.base.options.weight * loss)}
        inside = self.base.components(labels, embeddings)
        return {name: self.pair_weight * component for name, component in inside.items()}

    def batch_diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the diagnostics of the first term; arguments as in `diagnostics`."""
        if isinstance(self.base, PairLoss):
            return self.base.describe(self._pairs_within_batch(labels, embeddings), embeddings)
        return self.base.diagnostics(labels, embeddings)

    def _pairs_within_batch(self, labels: tf.Tensor, embeddings: tf.Tensor) -> Pairs:
        return self.core.pairs(
            embeddings, self.classes(labels), normalization=self.pair_normalization, mine=self.mine_pairs
        )

    def _check_base(self) -> None:
        kind, core = type(self).__name__, self.core
        if not core.pair_based:
            raise ValueError(f"{kind} wraps a pair-based loss; {type(core).__name__} is none")
        if core.proxies is not None or core.shared_proxies:
            raise ValueError(
                f"{kind} brings its own references, but {type(core).__name__} has "
                f"{core.options.proxies_per_class} proxies per class and {len(core.shared_proxies)} shared "
                "sets; expected 0"
            )
        if isinstance(self.base, WrappingLoss) and (self.mine_pairs or self.pair_normalization):
            raise ValueError(
                f"mine_pairs and pair_normalization of {kind} act on the pairs of the batch, which "
                f"{type(self.base).__name__} inside it compares; expected them to be left out"
            )
