"""Warnings about a run that goes on without learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# Untrained networks reach 0.9 and more; beyond this no neighbour is told from another but by rounding.
_COLLAPSED = 0.9999


class HealthCheck(tf.keras.callbacks.Callback):
    """Warns once when all embeddings are alike, and once when the loss has no gradient for a whole epoch."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """Creates the check.

        Args:
            warn: told one line each.
        """
        super().__init__()
        self._warn = warn
        self._told: set[str] = set()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Looks at `val_mean_cosine` and `gradient_norm`, where they are among the logs."""
        values = logs or {}
        if values.get("val_mean_cosine", 0.0) > _COLLAPSED:
            self._tell(
                "collapse",
                f"epoch {epoch + 1}: the embeddings have collapsed, their mean cosine is "
                f"{values['val_mean_cosine']:.6f}; try a lower learning rate, a larger margin, "
                "or easier negatives",
            )
        if values.get("gradient_norm") == 0.0:
            self._tell(
                "inactive",
                f"epoch {epoch + 1}: the loss was inactive, no pair had a gradient; "
                "try a larger margin, more classes per batch, or a miner",
            )

    def _tell(self, kind: str, message: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._warn(message)
