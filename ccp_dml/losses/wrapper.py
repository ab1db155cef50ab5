"""What losses around another loss share."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.pair_loss import PairLoss


class WrappingLoss(MetricLoss):
    """A loss made of another one, its argument and attribute `base`."""

    base: MetricLoss

    def get_config(self) -> dict[str, Any]:
        """Arguments that create a loss of this kind, the base loss serialised."""
        return {**super().get_config(), "base": tf.keras.utils.serialize_keras_object(self.base)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WrappingLoss:
        """Create a loss from what `get_config` returned."""
        return cls(**{**config, "base": tf.keras.utils.deserialize_keras_object(config["base"])})


def without_proxies(base: Any, wrapper: str) -> None:
    """Raise ValueError unless `base` is a pair-based loss without proxies of its own, as `wrapper` needs."""
    if not isinstance(base, PairLoss) or not base.pair_based:
        raise ValueError(f"{wrapper} wraps a pair-based loss; {type(base).__name__} is none")
    if base.proxies is not None or base.shared_proxies:
        raise ValueError(
            f"{wrapper} brings what samples are compared with, but {type(base).__name__} has "
            f"{base.proxies_per_class} proxies per class of its own; expected 0"
        )
