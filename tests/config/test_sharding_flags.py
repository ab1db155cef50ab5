"""Proxies are spread over replicas only where that is exact; flags that contradict it name each other."""

from __future__ import annotations

from typing import Any

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import ConfigError
from ccp_dml.losses import registry
from ccp_dml.losses.sharding import obstacle
from tests.losses.cases import BASIC, NUM_CLASSES, SIZE, WRAPPED, LossCase
from tests.losses.shard_cases import FURTHER, REFUSED, REPRESENTATIVE


def checked(**flags: Any) -> None:
    given = {"strategy": "mirrored", "shard_proxies": True, **flags}
    ExperimentConfig.from_dict(given).validate()


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"loss": "proxy_nca"},
        {"loss": "triplet", "proxies_per_class": 2, "proxy_anchor": True, "triplets": "semi_hard"},
        {"strategy": "multi_worker", "cluster": "slurm", "run_dir": "runs/sharded"},
    ],
    ids=str,
)
def test_what_is_exact_is_accepted(flags: dict[str, Any]) -> None:
    checked(**flags)


@pytest.mark.parametrize(
    "flags, problem",
    [
        ({"strategy": "one"}, "--shard_proxies=true: it does nothing with --strategy=one"),
        ({"strategy": "tpu"}, "--shard_proxies=true: it does nothing with --strategy=tpu"),
        ({"loss": "contrastive"}, "contradicts --proxies_per_class=0 with --loss=contrastive"),
        ({"loss": "xbm/contrastive"}, "contradicts --proxies_per_class=0 with --loss=xbm/contrastive"),
        ({"miner": "hard_negatives"}, "contradicts --miner=hard_negatives"),
        ({"loss": "ccp/triplet"}, "contradicts --proxy_anchor=false with --loss=ccp/triplet"),
        (
            {"loss": "ccp/triplet", "proxy_anchor": True, "triplets": "hardest"},
            "contradicts --triplets=hardest",
        ),
        ({"loss": "ccp/margin", "per_class": True}, "contradicts --per_class=true"),
        ({"loss": "proxy_nca", "proxy_pairs": True}, "contradicts --proxy_pairs=true"),
        ({"jit_compile": True}, "contradicts --jit_compile"),
        ({"optimizer": "lamb"}, "contradicts --optimizer=lamb"),
    ],
    ids=str,
)
def test_what_is_not_is_refused_in_one_line(flags: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError, match=f"{problem}.*expected") as raised:
        checked(**flags)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "case", [*REPRESENTATIVE, *FURTHER, *REFUSED, *BASIC, *WRAPPED], ids=lambda case: case.id
)
def test_what_is_known_without_tensorflow_is_what_the_loss_says(case: LossCase) -> None:
    found = obstacle(case.path, case.options)
    options = {"num_classes": NUM_CLASSES, "embedding_size": SIZE, "options": case.options}
    if found is None:
        registry.build(case.path, shard_proxies=True, **options)
    else:
        with pytest.raises(ValueError, match="needs the proxies of all classes|has no proxies"):
            registry.build(case.path, shard_proxies=True, **options)


# Losses whose formula is defined for one value of `proxy_anchor` only.
ONLY = {
    "cross_entropy": False,
    "multi_similarity": False,
    "proxy_anchor": True,
    "proxy_nca": False,
    "soft_triple": False,
}


@pytest.mark.parametrize("loss", registry.LOSSES)
@pytest.mark.parametrize("proxy_anchor", [None, False, True])
def test_so_with_proxies_as_anchors_and_without(loss: str, proxy_anchor: bool | None) -> None:
    options = {"proxies_per_class": 2} | ({} if proxy_anchor is None else {"proxy_anchor": proxy_anchor})
    if proxy_anchor in (None, ONLY.get(loss, proxy_anchor)):
        test_what_is_known_without_tensorflow_is_what_the_loss_says(LossCase(loss, options))
        return
    problem = f"proxy_anchor of .* is {proxy_anchor}; it is defined for {ONLY[loss]} only"
    with pytest.raises(ValueError, match=problem):
        registry.build(loss, num_classes=NUM_CLASSES, embedding_size=SIZE, options=options)
