"""Margin loss (fixed and per-class boundary) and cross-entropy against batch references."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from tests.parity.adapters.losses import build_loss, compare_loss, loss_name
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of loss_margin_xent.npz; the per-class boundary is recorded as [C, 1]."""
    loss = build_loss(loss_name(case.config), case)
    if "beta" not in case.arrays:
        return compare_loss(case, loss)
    loss.class_beta.assign(tf.reshape(case.arrays["beta"], [-1]))
    arrays = {**case.arrays, "grad_beta": case.arrays["grad_beta"][:, 0]}
    return compare_loss(dataclasses.replace(case, arrays=arrays), loss, [("grad_beta", loss.class_beta)])
