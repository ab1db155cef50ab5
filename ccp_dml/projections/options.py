"""The options of the alternating projections."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, Integer, Number, Switch, Text
from ccp_dml.options import Options, option

_WITH_PROXIES = {"ccp_use_representative_proxy": (True,)}


@dataclasses.dataclass(frozen=True)
class ProjectionOptions(Options):
    """The alternating projections of CCP, with ccp/... in --loss."""

    pool_size: int = option(
        7,
        Integer(0),
        "Images per class from which new proxies are chosen; 0 or 1 takes the next K images as they are.",
        only_with=_WITH_PROXIES,
    )
    pool_memory_steps: int = option(
        0,
        Integer(0),
        "Largest age, in steps, of embeddings of training steps in the pool; 0 embeds all images anew.",
        only_with=_WITH_PROXIES,
    )
    ccp_lambda: float = option(
        2e-4, Number(low=0), "Weight of the proximal term from the second instance on."
    )
    ccp_lambda_decay: float = option(1.0, Number(above=0), "Factor on --ccp_lambda for every new instance.")
    ccp_reset_rule: str = option(
        "fixed",
        Choice(("patience", "fixed", "staleness")),
        "An instance ends when its score stalls, after --ccp_min_iterations, or when its proxies are stale.",
    )
    ccp_patience: int = option(
        3,
        Integer(1),
        "Validations without improvement that end an instance.",
        only_with={"ccp_reset_rule": ("patience",)},
    )
    ccp_min_iterations: int = option(1, Integer(1), "Smallest number of validations of an instance.")
    ccp_max_iterations: int | None = option(None, Integer(1), "Largest number of validations of an instance.")
    ccp_staleness_threshold: float = option(
        0.5,
        Number(above=0),
        "Distance of the proxies from the present embeddings of their images, relative to the spread of the "
        "proxies, that ends an instance.",
        only_with={"ccp_reset_rule": ("staleness",)},
    )
    ccp_random_init: bool = option(
        False, Switch(), "Start from random proxies instead of embeddings.", only_with=_WITH_PROXIES
    )
    ccp_normalized_embeddings: bool = option(
        False,
        Switch(),
        "Choose proxies by distances of unit vectors.",
        # Every image of a smaller pool becomes a proxy, whatever the distances.
        only_with={**_WITH_PROXIES, "pool_size": Integer(2)},
    )
    ccp_use_representative_proxy: bool = option(
        True, Switch(), "Choose new proxies; without, only the proximal term remains."
    )
    ccp_perturb_noise: float = option(
        0.0,
        Number(low=0),
        "Noise on the solution that the weights are pulled to, relative to the root mean square of each.",
    )
    ccp_monitor: str | None = option(
        None, Text("the name of a metric, or loss"), "Monitored score of an instance (default: --monitor)."
    )
    ccp_stop_at_min: bool | None = option(
        None, Switch(), "Lower scores of an instance are better (default: only with --ccp_monitor=loss)."
    )
    ccp_step_at_batch: bool = option(
        False,
        Switch(),
        "Judge an instance after every batch, by its loss, instead of after every validation.",
    )

    def draws(self, proxies_per_class: int) -> int:
        """Returns the number of images per class that are drawn to choose K proxies."""
        if self.pool_size <= 1:
            return proxies_per_class
        if self.pool_size < proxies_per_class:
            return self.pool_size * proxies_per_class
        return self.pool_size
