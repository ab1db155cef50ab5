"""Values and gradients of loss_contrastive.npz."""

from __future__ import annotations

from tests.parity.adapters.losses import compare_by_name as compare

__all__ = ["compare"]
