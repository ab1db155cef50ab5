"""The options that all losses over pairs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ccp_dml.geometry import check_distance, check_normalization
from ccp_dml.losses.miners import MINERS
from ccp_dml.losses.pairs import AVERAGES
from ccp_dml.models.proxies import Proxies


@dataclasses.dataclass(frozen=True)
class PairOptions:
    """Options of a `PairLoss`, given to it as keyword arguments.

    Attributes:
        normalization: of embeddings and proxies, `'lipschitz'`, `'unit'`, `'l1'` or `'none'`.
        distance: `'euclidean'` (the default), `'squared_euclidean'` or `'cosine'`; None for the default.
        average: `'active'`, over the terms that are not zero, or `'all'`, over the whole matrix.
        miner: `'hard_negatives'`, `'distance_weighted'`, or None for all negatives.
        weight: factor on the loss.
        proxies_per_class: number of proxies that the loss itself trains; 0 for a loss over the batch alone;
            None for 1 if the formula needs proxies, else 0.
        num_classes: number of training classes; needed with proxies.
        embedding_size: dimension of the embeddings; needed with proxies.
        proxy_anchor: whether proxies, not samples, are the anchors; None for False unless the formula needs
            it.
        proxy_pairs: whether proxies are also paired with each other (each with itself, too).
        proxy_learning_rate_multiplier: factor on the learning rate of the proxies.
        references_per_batch: if positive, the first so many samples of the batch are the references (like
            proxies), and the others are compared with them.
        shared_proxies: further sets of proxies, those of other losses, say; they join the loss's own.
        shard_proxies: spread the classes of the loss's proxies over the replicas of the strategy in scope.
        seed: of a miner that draws, and of sharded proxies.
    """

    normalization: str = "lipschitz"
    distance: str | None = None
    average: str = "active"
    miner: str | None = None
    weight: float = 1.0
    proxies_per_class: int | None = None
    num_classes: int | None = None
    embedding_size: int | None = None
    proxy_anchor: bool | None = None
    proxy_pairs: bool = False
    proxy_learning_rate_multiplier: float = 1.0
    references_per_batch: int = 0
    shared_proxies: Sequence[Proxies] = ()
    shard_proxies: bool = False
    seed: int = 0

    def completed(
        self, loss: str, only_distance: str | None, only_proxy_anchor: bool | None, needs_proxies: bool
    ) -> PairOptions:
        """The options of a loss without the values that depend on its formula, checked.

        Args:
            loss: name of its class, for messages.
            only_distance: the one distance that its formula is defined for; None if it takes any.
            only_proxy_anchor: the one value of `proxy_anchor` that it is defined for; None if both.
            needs_proxies: whether its formula makes sense with proxies only.

        Raises:
            ValueError: if an option is unknown or the formula is not defined for it.
        """
        per_class = int(needs_proxies) if self.proxies_per_class is None else self.proxies_per_class
        complete = dataclasses.replace(
            self,
            distance=_only(loss, "distance", self.distance, only_distance, "euclidean"),
            proxy_anchor=_only(loss, "proxy_anchor", self.proxy_anchor, only_proxy_anchor, False),
            proxies_per_class=per_class,
            shared_proxies=tuple(self.shared_proxies),
        )
        check_normalization(complete.normalization)
        check_distance(str(complete.distance))
        if self.average not in AVERAGES:
            raise ValueError(f"average is {self.average!r}; expected one of {', '.join(AVERAGES)}")
        if self.miner is not None and self.miner not in MINERS:
            raise ValueError(f"miner is {self.miner!r}; expected None or one of {', '.join(MINERS)}")
        if self.references_per_batch < 0 or (
            self.references_per_batch and (per_class or self.shared_proxies)
        ):
            raise ValueError(
                f"references_per_batch is {self.references_per_batch} beside {per_class} proxies per class and "
                f"{len(self.shared_proxies)} shared sets; expected 0, or a positive number without proxies"
            )
        if per_class < int(needs_proxies):
            raise ValueError(
                f"proxies_per_class of {loss} is {per_class}; expected at least {int(needs_proxies)}"
            )
        if per_class and (self.num_classes is None or self.embedding_size is None):
            raise ValueError(
                f"proxies_per_class is {per_class}, but num_classes is {self.num_classes} and "
                f"embedding_size is {self.embedding_size}; proxies need both"
            )
        return complete


def _only(loss: str, option: str, value: Any, only: Any, default: Any) -> Any:
    """The value of an option that a formula may be defined for one value of."""
    if only is not None and value not in (None, only):
        raise ValueError(f"{option} of {loss} is {value!r}; it is defined for {only!r} only")
    if value is not None:
        return value
    return default if only is None else only
