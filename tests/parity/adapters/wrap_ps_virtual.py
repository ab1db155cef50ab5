"""Proxy synthesis with a recorded mixing rate, and virtual softmax."""

from __future__ import annotations

from tests.parity.adapters.losses import build_loss, compare_loss, loss_name, rtol
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of wrap_ps_virtual.npz."""
    config, arrays = case.config, case.arrays
    path = f"{'ps' if 'mixing_rate' in config else 'virtual_softmax'}/{loss_name(config)}"
    settings = {"proxy_learning_rate_multiplier": config["proxy_lrm"]}
    if "mixing_rate" not in config:
        return compare_loss(case, build_loss(path, case, settings), gradient_rtol=rtol(config))
    settings |= {
        "mixing_alpha": config["ps_alpha"],
        "synthetic_share": config["ps_mu"],
        "mixing_rate": config["mixing_rate"],
    }
    loss = build_loss(path, case, settings)
    synthesis = loss.synthesize(arrays["labels"], arrays["emb"], config["mixing_rate"])
    synthetic_labels = synthesis.labels.numpy().reshape(arrays["synthetic_labels"].shape)
    return [
        *compare_loss(case, loss, gradient_rtol=rtol(config)),
        Comparison("synthetic_labels", synthetic_labels, arrays["synthetic_labels"], rtol=0.0),
    ]
