"""The losses by name, with the parameters that each takes; only `build` imports TensorFlow.

A new loss is a module with its class and an entry of `LOSSES`. Its parameters become command-line flags.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import TYPE_CHECKING, Any

from ccp_dml.losses.options import NORMALIZATIONS, PairOptions
from ccp_dml.options import Choice, Integer, Number, Option, Options, Switch, Text, option, options_of

if TYPE_CHECKING:
    from ccp_dml.losses.base import MetricLoss


def _parameter(name: str, kind: Any, help: str) -> Option:
    """A parameter of a loss; without a value the default of the loss's class holds."""
    return Option(name, kind, None, help)


_NON_NEGATIVE, _POSITIVE, _ANY = Number(low=0), Number(above=0), Number()
# A flag that is not given leaves the default of the loss.
_SHARED_BY_PAIR_LOSSES = tuple(
    dataclasses.replace(declared, default=None) for declared in options_of(PairOptions)
)
_SHARED = {parameter.name: parameter for parameter in _SHARED_BY_PAIR_LOSSES}
_MARGIN = _parameter("margin", _ANY, "Margin of a loss that has one.")
_ALPHA = _parameter("alpha", _POSITIVE, "Steepness for positives; of margin, half the gap.")
_BETA = _parameter("beta", _ANY, "Steepness for negatives; of margin, the boundary.")
_TEMPERATURE = _parameter("temperature", _POSITIVE, "Temperature of a softmax.")
_PAIR_WEIGHT = _parameter("pair_weight", _NON_NEGATIVE, "Weight of the pairs of the batch in ccp or xbm.")
_MINE_PAIRS = _parameter("mine_pairs", Switch(), "Mine the pairs of the batch too, in ccp or xbm.")
_PROXY_OPTIONS = ("proxies_per_class", "proxy_learning_rate_multiplier")


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """The class of a loss or wrapper and what it takes.

    Attributes:
        target: `'module:Class'`.
        own: parameters of its `__init__` besides those that all pair losses share.
        is_wrapper: whether it is made of another loss.
        pair_based: of a loss, whether it is defined on any pairs, without proxies of its own; of a wrapper,
            whether further wrappers may be around it.
        wraps: losses that a wrapper can be directly around; empty: any that are pair-based all the way down.
        hides: options that the innermost loss of a wrapper must not have.
        only_around_loss: options that a wrapper has only directly around a loss.
    """

    target: str
    own: tuple[Option, ...] = ()
    is_wrapper: bool = False
    pair_based: bool = True
    wraps: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    only_around_loss: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[Option, ...]:
        """All parameters, those that pair losses share last."""
        return self.own if self.is_wrapper else (*self.own, *_SHARED_BY_PAIR_LOSSES)

    def load(self) -> Any:
        """Imports the class."""
        module, name = self.target.split(":")
        return getattr(importlib.import_module(module), name)


LOSSES: dict[str, LossSpec] = {
    "contrastive": LossSpec(
        "ccp_dml.losses.contrastive:Contrastive",
        (
            _parameter("positive_margin", _ANY, "Distance up to which a positive pair costs nothing."),
            _parameter("negative_margin", _ANY, "Distance from which a negative pair costs nothing."),
        ),
    ),
    "original_contrastive": LossSpec(
        "ccp_dml.losses.contrastive:OriginalContrastive",
        (_MARGIN, _parameter("slack", _ANY, "Slack of the positive term of original_contrastive.")),
    ),
    "triplet": LossSpec(
        "ccp_dml.losses.triplet:Triplet",
        (
            _MARGIN,
            _parameter(
                "triplets", Choice(("all", "hardest", "semi_hard")), "Selection of triplets in triplet."
            ),
        ),
    ),
    "multi_similarity": LossSpec(
        "ccp_dml.losses.multi_similarity:MultiSimilarity",
        (_ALPHA, _BETA, _parameter("threshold", _ANY, "Similarity at which multi_similarity bends.")),
    ),
    "margin": LossSpec(
        "ccp_dml.losses.margin:Margin",
        (
            _ALPHA,
            _BETA,
            _parameter("per_class", Switch(), "Learn a boundary for each class in margin."),
            _parameter("beta_weight", _NON_NEGATIVE, "Weight of the mean boundary in margin."),
        ),
    ),
    "cross_entropy": LossSpec("ccp_dml.losses.cross_entropy:CrossEntropy", (_TEMPERATURE,)),
    "proxy_anchor": LossSpec("ccp_dml.losses.proxy_anchor:ProxyAnchor", (_ALPHA, _MARGIN), pair_based=False),
    "proxy_nca": LossSpec("ccp_dml.losses.proxy_nca:ProxyNCA", (_TEMPERATURE, _MARGIN), pair_based=False),
    "soft_triple": LossSpec(
        "ccp_dml.losses.soft_triple:SoftTriple",
        (
            _parameter("scale", _POSITIVE, "Factor on the class similarities of soft_triple."),
            _TEMPERATURE,
            _MARGIN,
            _parameter(
                "center_weight",
                _NON_NEGATIVE,
                "Weight of the distances between proxies of a class in soft_triple.",
            ),
            _parameter(
                "center_normalization",
                Choice(NORMALIZATIONS),
                "Normalisation of the proxies in these distances.",
            ),
        ),
        pair_based=False,
    ),
}

WRAPPERS: dict[str, LossSpec] = {
    "ccp": LossSpec(
        "ccp_dml.losses.ccp:CCP",
        (
            _SHARED["proxies_per_class"],
            _PAIR_WEIGHT,
            _parameter("proxy_weight", _NON_NEGATIVE, "Weight of batch against proxies in ccp."),
            _parameter(
                "pair_normalization",
                Choice(NORMALIZATIONS),
                "Normalisation of the pairs of the batch in ccp (default: --normalization).",
            ),
            _MINE_PAIRS,
            _SHARED["proxy_learning_rate_multiplier"],
        ),
        is_wrapper=True,
        hides=_PROXY_OPTIONS,
        only_around_loss=("pair_normalization", "mine_pairs"),
    ),
    "xbm": LossSpec(
        "ccp_dml.losses.cross_batch_memory:CrossBatchMemory",
        (
            _parameter("memory_size", Integer(1), "Embeddings in the memory of xbm."),
            _parameter("memory_weight", _NON_NEGATIVE, "Weight of batch against memory in xbm."),
            _PAIR_WEIGHT,
            _parameter("start_step", Integer(0), "First step, from 1, that may use the memory of xbm."),
            _parameter(
                "exclude_own_copy",
                Switch(),
                "In xbm, do not pair an image with its own embeddings in the memory.",
            ),
            _MINE_PAIRS,
            _parameter(
                "anchors_per_block",
                Integer(0),
                "In xbm, anchors compared with the memory at a time, to save memory; 0: all.",
            ),
        ),
        is_wrapper=True,
        hides=(*_PROXY_OPTIONS, "proxy_pairs"),
        only_around_loss=("mine_pairs",),
    ),
    "mdr": LossSpec(
        "ccp_dml.losses.distance_regularization:DistanceRegularization",
        (
            _parameter(
                "regularization_weight", _NON_NEGATIVE, "Weight of the distances to the levels in mdr."
            ),
            _parameter("level_weight", _NON_NEGATIVE, "Weight of the squared levels in mdr."),
            _parameter("num_levels", Integer(1), "Number of levels in mdr."),
            _parameter(
                "statistics_momentum",
                Number(low=0, below=1),
                "Momentum of the running mean and deviation of distances in mdr.",
            ),
        ),
        is_wrapper=True,
        wraps=(*LOSSES, "ccp", "xbm", "ps", "virtual_softmax"),
    ),
    "ps": LossSpec(
        "ccp_dml.losses.proxy_synthesis:ProxySynthesis",
        (
            _parameter(
                "mixing_alpha",
                _POSITIVE,
                "Both parameters of the beta distribution of mixing rates in ps.",
            ),
            _parameter(
                "synthetic_share", Number(above=0, high=1), "Synthetic samples in ps, relative to the batch."
            ),
            _parameter("mixing_rate", Number(low=0, high=1), "A fixed mixing rate in ps."),
        ),
        is_wrapper=True,
        pair_based=False,
        wraps=("proxy_nca", "proxy_anchor", "virtual_softmax"),
        hides=("proxy_pairs",),
    ),
    "virtual_softmax": LossSpec(
        "ccp_dml.losses.virtual_softmax:VirtualSoftmax",
        is_wrapper=True,
        pair_based=False,
        wraps=("proxy_nca",),
        hides=("proxy_pairs",),
    ),
}
_SPECS = {**LOSSES, **WRAPPERS}


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """The loss, with one field for each parameter of the losses; None where the loss's default holds."""

    loss: str = option(
        "ccp/contrastive", Text("a path of losses"), "Loss, wrappers first, such as ccp/contrastive."
    )

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters that have a value."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if name != "loss" and value is not None}

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def _all_parameters() -> dict[str, Option]:
    found: dict[str, Option] = {}
    for spec in _SPECS.values():
        for parameter in spec.parameters:
            if found.setdefault(parameter.name, parameter) != parameter:
                raise ValueError(f"the parameter {parameter.name} of {spec.target} is declared twice")
    return found


_WithParameters = dataclasses.make_dataclass(
    "LossOptions",
    [(p.name, Any, option(None, p.kind, p.help)) for p in _all_parameters().values()],
    bases=(LossOptions,),
    frozen=True,
    namespace={"__doc__": "The loss; a flag without a value has the default of the loss."},
)


def loss_options(**values: Any) -> LossOptions:
    """Makes loss options from the path `loss` and parameters by name."""
    return _WithParameters(**values)


def parse(path: str) -> tuple[str, ...]:
    """Splits and checks a loss path: wrappers, outer first, and one loss, as in `ccp/xbm/contrastive`.

    Raises:
        ValueError: if a name is unknown or in a place where it cannot be.
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
        if not wraps and not all(_SPECS[name].pair_based for name in inside):
            possible = [
                ", ".join(name for name, spec in group.items() if spec.pair_based)
                for group in (LOSSES, WRAPPERS)
            ]
            raise ValueError(
                f"loss {path!r}: {wrapper} wraps pair-based losses only ({possible[0]}; or {possible[1]} "
                "around one of them)"
            )
    return names


def normalizations(path: str) -> tuple[str, ...]:
    """Normalisations under which training and evaluation measure the same distances, the default first.

    MDR divides embeddings by their mean distance, and evaluation does not: they agree with no normalisation
    (the order of distances is the same) and at unit length. The proxies of CCP are embeddings of images;
    inside MDR they go with scaled embeddings at unit length only.

    Raises:
        ValueError: if the path is not valid.
    """
    names = parse(path)
    if "mdr" not in names:
        return NORMALIZATIONS
    return ("unit",) if "ccp" in names[names.index("mdr") :] else ("none", "unit")


def parameters(path: str) -> frozenset[str]:
    """Names of the parameters that the losses of a path take.

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
    """Makes the loss of a path.

    Args:
        path: such as `contrastive` or `ccp/contrastive`.
        num_classes: number of training classes.
        embedding_size: dimension of the embeddings.
        seed: of everything that a loss draws at random.
        shard_proxies: spread the classes of the proxies over the replicas of the strategy in scope, see
            `docs/scaling.md`.
        options: parameters by name; each goes to the losses of the path that take it.

    Raises:
        ValueError: if the path is not valid, no loss of it takes an option, or proxies are to be sharded and
            there are none, or the loss needs them all in one place.
    """
    taken = _parameters_by_name(parse(path))
    options = options or {}
    unused = sorted(set(options) - parameters(path))
    if unused:
        raise ValueError(
            f"loss {path!r} takes no option {', '.join(unused)}; "
            f"it takes {', '.join(sorted(parameters(path)))}"
        )
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
    given = {**sizes, "seed": seed, "shard_proxies": shard_proxies}
    built: MetricLoss | None = None
    for name, accepted in reversed(taken.items()):
        chosen = {option: value for option, value in options.items() if option in accepted}
        make = _SPECS[name].load()
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
    """Parameters of each loss of a path; one that several wrappers have is the outermost's."""
    *wrappers, loss = names
    taken: dict[str, tuple[str, ...]] = {}
    for name in wrappers:
        elsewhere = {option for options in taken.values() for option in options}
        if name != wrappers[-1]:
            elsewhere |= set(WRAPPERS[name].only_around_loss)
        of_wrapper = (parameter.name for parameter in WRAPPERS[name].parameters)
        taken[name] = tuple(option for option in of_wrapper if option not in elsewhere)
    hidden = {option for name in wrappers for option in WRAPPERS[name].hides}
    of_loss = (parameter.name for parameter in LOSSES[loss].parameters)
    taken[loss] = tuple(option for option in of_loss if option not in hidden)
    return taken
