"""Which losses are exact when the classes of their proxies are sharded; known without TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ccp_dml.losses.registry import LOSSES, parse


class Obstacle(NamedTuple):
    """An option that keeps a loss from being sharded.

    Attributes:
        option: name of the option.
        value: what it is.
        why: what it would need.
        expected: what it has to be.
    """

    option: str
    value: Any
    why: str
    expected: str


def obstacle(path: str, options: Mapping[str, Any]) -> Obstacle | None:
    """What keeps the loss of a path from being sharded; None if nothing does.

    Args:
        path: a valid path of losses.
        options: those that are given and that the losses of the path take.
    """
    *wrappers, loss = parse(path)
    if "ccp" not in wrappers and not options.get("proxies_per_class", not LOSSES[loss].pair_based):
        return Obstacle(
            "proxies_per_class", 0, f"{path} has no proxies then", "at least 1, or ccp/... as --loss"
        )
    if options.get("miner") is not None:
        why = "it looks at the proxies of all classes"
        return Obstacle("miner", options["miner"], why, "no miner")
    if options.get("proxy_pairs"):
        return Obstacle("proxy_pairs", True, "it compares the proxies of all classes", "False")
    if options.get("per_class"):
        return Obstacle("per_class", True, "these boundaries are not sharded", "False")
    if loss == "triplet":
        return _obstacle_of_triplets(options)
    return None


def _obstacle_of_triplets(options: Mapping[str, Any]) -> Obstacle | None:
    if not options.get("proxy_anchor"):
        why = "in triplet a sample as an anchor is compared with the proxies of all classes"
        return Obstacle("proxy_anchor", False, why, "True")
    if options.get("triplets") == "hardest":
        why = "how many triplets are the hardest depends on all proxies"
        return Obstacle("triplets", "hardest", why, "all or semi_hard")
    return None
