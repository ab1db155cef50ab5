"""The losses by name. Names and parameters are known without TensorFlow; only `build` imports it."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ccp_dml.losses.base import MetricLoss

_COMMON = (
    "normalization",
    "distance",
    "average",
    "miner",
    "weight",
    "proxies_per_class",
    "proxy_anchor",
    "proxy_pairs",
    "proxy_learning_rate_multiplier",
    "references_per_batch",
)
_OWN_PROXIES = ("proxies_per_class", "proxy_learning_rate_multiplier")


@dataclass(frozen=True)
class LossSpec:
    """Where a loss is and what it takes.

    Attributes:
        target: `'module:Class'`.
        parameters: the options of its `__init__`, without `name` and what the data set, the model and the run
            determine.
        pair_based: (loss) whether it is defined on any pairs, without proxies of its own; (wrapper) whether,
            around such a loss, it leaves that to further wrappers.
        wraps: (wrapper) what can be directly inside it; empty: what is pair-based all the way down.
        hides: (wrapper) options that the innermost loss must not have.
        of_pairs: (wrapper) options that it has only directly around a loss, where the pairs of the batch are
            its matter.
    """

    target: str
    parameters: tuple[str, ...]
    pair_based: bool = True
    wraps: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    of_pairs: tuple[str, ...] = ()


LOSSES: dict[str, LossSpec] = {
    "contrastive": LossSpec(
        "ccp_dml.losses.contrastive:Contrastive", ("positive_margin", "negative_margin", *_COMMON)
    ),
    "original_contrastive": LossSpec(
        "ccp_dml.losses.contrastive:OriginalContrastive", ("margin", "slack", *_COMMON)
    ),
    "triplet": LossSpec("ccp_dml.losses.triplet:Triplet", ("margin", "triplets", *_COMMON)),
    "multi_similarity": LossSpec(
        "ccp_dml.losses.multi_similarity:MultiSimilarity", ("alpha", "beta", "threshold", *_COMMON)
    ),
    "margin": LossSpec(
        "ccp_dml.losses.margin:Margin", ("alpha", "beta", "per_class", "beta_weight", *_COMMON)
    ),
    "cross_entropy": LossSpec("ccp_dml.losses.cross_entropy:CrossEntropy", ("temperature", *_COMMON)),
    "proxy_anchor": LossSpec(
        "ccp_dml.losses.proxy_anchor:ProxyAnchor", ("alpha", "margin", *_COMMON), pair_based=False
    ),
    "proxy_nca": LossSpec(
        "ccp_dml.losses.proxy_nca:ProxyNCA", ("temperature", "margin", *_COMMON), pair_based=False
    ),
    "soft_triple": LossSpec(
        "ccp_dml.losses.soft_triple:SoftTriple",
        ("scale", "temperature", "margin", "center_weight", "center_normalization", *_COMMON),
        pair_based=False,
    ),
}

WRAPPERS: dict[str, LossSpec] = {
    "ccp": LossSpec(
        "ccp_dml.losses.ccp:CCP",
        (
            "proxies_per_class",
            "pair_weight",
            "proxy_weight",
            "pair_normalization",
            "mine_pairs",
            "proxy_learning_rate_multiplier",
        ),
        hides=_OWN_PROXIES,
        of_pairs=("pair_normalization", "mine_pairs"),
    ),
    "xbm": LossSpec(
        "ccp_dml.losses.cross_batch_memory:CrossBatchMemory",
        (
            "memory_size",
            "memory_weight",
            "pair_weight",
            "start_step",
            "exclude_own_copy",
            "mine_pairs",
            "anchors_per_block",
        ),
        hides=(*_OWN_PROXIES, "proxy_pairs"),
        of_pairs=("mine_pairs",),
    ),
    "mdr": LossSpec(
        "ccp_dml.losses.distance_regularization:DistanceRegularization",
        ("regularization_weight", "level_weight", "num_levels", "statistics_momentum"),
        wraps=(*LOSSES, "ccp", "xbm", "ps", "virtual_softmax"),
    ),
    "ps": LossSpec(
        "ccp_dml.losses.proxy_synthesis:ProxySynthesis",
        ("mixing_alpha", "synthetic_share", "mixing_rate"),
        pair_based=False,
        wraps=("proxy_nca", "proxy_anchor", "virtual_softmax"),
        hides=("proxy_pairs",),
    ),
    "virtual_softmax": LossSpec(
        "ccp_dml.losses.virtual_softmax:VirtualSoftmax",
        (),
        pair_based=False,
        wraps=("proxy_nca",),
        hides=("proxy_pairs",),
    ),
}


def parse(path: str) -> tuple[str, ...]:
    """Split and check a loss path: wrappers, outer first, and one loss, as in `ccp/xbm/contrastive`.

    Raises:
        ValueError: if a name is unknown or stands where it cannot.
    """
    *wrappers, loss = names = tuple(path.split("/"))
    unknown = [name for name in wrappers if name not in WRAPPERS] + ([] if loss in LOSSES else [loss])
    if unknown:
        raise ValueError(
            f"loss {path!r}: {unknown[0]!r} cannot stand there; expected a loss ({', '.join(LOSSES)}), "
            f"optionally inside wrappers ({', '.join(WRAPPERS)}), as in 'ccp/contrastive'"
        )
    for position, wrapper in enumerate(wrappers):
        inside = names[position + 1 :]
        if wrapper in inside:
            raise ValueError(f"loss {path!r}: {wrapper} is inside {wrapper}; expected each wrapper once")
        wraps = WRAPPERS[wrapper].wraps
        if wraps and inside[0] not in wraps:
            raise ValueError(f"loss {path!r}: {wrapper} directly wraps these only: {', '.join(wraps)}")
        if not wraps and not all(_spec(name).pair_based for name in inside):
            kinds = (LOSSES, WRAPPERS)
            possible = [", ".join(name for name, spec in kind.items() if spec.pair_based) for kind in kinds]
            raise ValueError(
                f"loss {path!r}: {wrapper} wraps pair-based losses only ({possible[0]}; or {possible[1]} "
                "around one of them)"
            )
    return names


def normalizations(path: str) -> tuple[str, ...]:
    """Normalisations with which a loss is trained on what is evaluated, the default one first.

    MDR divides embeddings by their mean distance, and evaluation does not: they agree with no normalisation
    (the order of distances is the same) and at unit length. The proxies of CCP are embeddings of images;
    inside MDR they go with scaled embeddings at unit length only.

    Raises:
        ValueError: if the path is not valid.
    """
    names = parse(path)
    if "mdr" not in names:
        return ("lipschitz", "unit", "l1", "none")
    return ("unit",) if "ccp" in names[names.index("mdr") :] else ("none", "unit")


def parameters(path: str) -> frozenset[str]:
    """Options that the losses of a path take.

    Raises:
        ValueError: if the path is not valid.
    """
    return frozenset().union(*_parameters_by_name(parse(path)).values())


def build(
    path: str,
    *,
    num_classes: int,
    embedding_size: int,
    seed: int = 0,
    shard_proxies: bool = False,
    options: dict[str, Any] | None = None,
) -> MetricLoss:
    """Make the loss of a path.

    Args:
        path: such as `contrastive` or `ccp/contrastive`.
        num_classes: number of training classes.
        embedding_size: dimension of the embeddings.
        seed: of what a loss draws at random.
        shard_proxies: spread the classes of the proxies over the replicas of the strategy in scope, see
            `docs/scaling.md`.
        options: `__init__` options; each goes to the losses of the path that take it.

    Raises:
        ValueError: if the path is not valid, an option is taken by no loss of it, or proxies are to be
            sharded and there are none, or the loss needs them all in one place.
    """
    taken = _parameters_by_name(parse(path))
    options = options or {}
    unused = sorted(set(options) - parameters(path))
    if unused:
        raise ValueError(
            f"loss {path!r} takes no option {', '.join(unused)}; "
            f"it takes {', '.join(sorted(parameters(path)))}"
        )
    built: MetricLoss | None = None
    for name, accepted in reversed(taken.items()):
        chosen = {option: value for option, value in options.items() if option in accepted}
        make = _load(_spec(name).target)
        given = {
            "num_classes": num_classes,
            "embedding_size": embedding_size,
            "seed": seed,
            "shard_proxies": shard_proxies,
        }
        if built is None:
            built = make(**chosen, **given)
        else:
            known = inspect.signature(make).parameters
            built = make(built, **chosen, **{key: value for key, value in given.items() if key in known})
    assert built is not None
    if shard_proxies:
        if built.proxies is None:
            raise ValueError(f"shard_proxies is True, but loss {path!r} has no proxies; expected False")
        built.check_shards()
    return built


def _parameters_by_name(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Options of each loss of a path; one that several wrappers have is the outermost's."""
    *wrappers, loss = names
    taken: dict[str, tuple[str, ...]] = {}
    for name in wrappers:
        elsewhere = {option for options in taken.values() for option in options}
        if name != wrappers[-1]:
            elsewhere |= set(WRAPPERS[name].of_pairs)
        taken[name] = tuple(option for option in WRAPPERS[name].parameters if option not in elsewhere)
    hidden = {option for name in wrappers for option in WRAPPERS[name].hides}
    taken[loss] = tuple(option for option in LOSSES[loss].parameters if option not in hidden)
    return taken


def _spec(name: str) -> LossSpec:
    return (WRAPPERS if name in WRAPPERS else LOSSES)[name]


def _load(target: str) -> Any:
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)
