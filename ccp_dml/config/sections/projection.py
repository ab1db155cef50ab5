"""The flags of the alternating projections of CCP."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import flag
from ccp_dml.config.values import Choice, Integer, Number, Switch, Text


@dataclasses.dataclass(frozen=True)
class ProjectionConfig:
    """The alternating projections of CCP, with ccp/... in --loss."""

    pool_size: int = flag(7, Integer(0), "Images per class among which new proxies are chosen (b).")
    pool_memory_steps: int = flag(
        0, Integer(0), "Choose from embeddings of training steps, if at most so many steps old; 0: off."
    )
    ccp_lambda: float = flag(2e-4, Number(low=0), "Weight of the proximal term, from the second instance on.")
    ccp_lambda_decay: float = flag(1.0, Number(above=0), "Factor on --ccp_lambda at every new instance.")
    ccp_reset_rule: str = flag(
        "patience",
        Choice(("patience", "fixed", "staleness")),
        "An instance ends when its score stalls, after --ccp_min_iterations, or when proxies are stale.",
    )
    ccp_patience: int = flag(3, Integer(1), "Validations without improvement that end an instance.")
    ccp_min_iterations: int = flag(1, Integer(1), "Validations that an instance has at least.")
    ccp_max_iterations: int | None = flag(None, Integer(1), "Validations that an instance has at most.")
    ccp_staleness_threshold: float = flag(
        0.5,
        Number(above=0),
        "Distance of proxies from the present embeddings of their images, over their spread.",
    )
    ccp_random_init: bool = flag(False, Switch(), "Start from random proxies instead of embeddings.")
    ccp_normalized_embeddings: bool = flag(False, Switch(), "Choose proxies by distances of unit vectors.")
    ccp_use_representative_proxy: bool = flag(
        True, Switch(), "Choose new proxies; without, proximal term alone."
    )
    ccp_perturb_noise: float = flag(
        0.0, Number(low=0), "Noise on the solution towards which weights are pulled."
    )
    ccp_monitor: str | None = flag(
        None, Text("the name of a metric, or loss"), "Score of an instance (default: --monitor)."
    )
    ccp_stop_at_min: bool | None = flag(None, Switch(), "A lower score is better (default: only of loss).")
    ccp_step_at_batch: bool = flag(
        False, Switch(), "Look after every batch, at its loss, not at validations."
    )
