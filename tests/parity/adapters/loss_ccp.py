"""Values and gradients of CCP around pair losses."""

from __future__ import annotations

from tests.parity.adapters.losses import build_loss, compare_loss, loss_name, rtol
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of loss_ccp.npz."""
    config = case.config
    settings = {
        # The recorded pair term is always Lipschitz-normalised, without the weight of the base loss.
        "pair_normalization": "lipschitz",
        "pair_weight": config["pair_loss_weight"] / config["loss_weight"],
        "proxy_weight": config["ccp_weight"],
    }
    loss = build_loss(f"ccp/{loss_name(config)}", case, settings)
    return compare_loss(case, loss, gradient_rtol=rtol(config))
