"""The table of all losses and wrappers: class, parameters, and valid nesting.

It imports no TensorFlow: command-line flags, their ranges and their help follow from it. Each parameter is a
keyword argument of the class of the same name; its default is the default of that argument. Parameters of
several losses are declared once, at the top.
"""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, Integer, Kind, Number, Switch
from ccp_dml.losses.options import NORMALIZATIONS, PairOptions
from ccp_dml.options import Option, options_of


def _parameter(name: str, kind: Kind, help: str) -> Option:
    """Declares a parameter; None, for a flag that is not given, leaves the default of the class."""
    return Option(name, kind, None, help)


_ANY, _NON_NEGATIVE, _POSITIVE = Number(), Number(low=0), Number(above=0)
_MARGIN = _parameter("margin", _ANY, "Margin of a loss that has one.")
_ALPHA = _parameter("alpha", _POSITIVE, "Steepness for positives; of margin, half the gap.")
_BETA = _parameter("beta", _ANY, "Steepness for negatives; of margin, the boundary.")
_TEMPERATURE = _parameter("temperature", _POSITIVE, "Temperature of a softmax.")
_PAIR_WEIGHT = _parameter("pair_weight", _NON_NEGATIVE, "Weight of the pairs of the batch in ccp or xbm.")
_MINE_PAIRS = _parameter("mine_pairs", Switch(), "Mine the pairs of the batch too, in ccp or xbm.")
_PAIR_OPTIONS = {
    option.name: _parameter(option.name, option.kind, option.help) for option in options_of(PairOptions)
}


@dataclasses.dataclass(frozen=True)
class LossSpec:
    """A loss or a wrapper.

    Attributes:
        target: its class, as `'module:Class'`.
        parameters: the parameters that its class takes, besides sizes and seed.
        pair_based: True for a loss that is defined on any pairs, False for one that needs proxies; for a
            wrapper, True if CCP and XBM can be around it.
    """

    target: str
    parameters: tuple[Option, ...]
    pair_based: bool = True


@dataclasses.dataclass(frozen=True)
class WrapperSpec(LossSpec):
    """A wrapper.

    Attributes:
        wraps: losses and wrappers that it can be directly around; empty for all that are pair-based, with
            only pair-based ones inside.
        hides: parameters that the innermost loss cannot have inside this wrapper.
        only_around_loss: parameters that this wrapper has only if it is directly around a loss.
    """

    wraps: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    only_around_loss: tuple[str, ...] = ()


def _pair_loss(target: str, *parameters: Option, pair_based: bool = True) -> LossSpec:
    """Makes the spec of a `PairLoss`: adds the options of all pair losses to its own parameters."""
    return LossSpec(f"ccp_dml.losses.{target}", (*parameters, *_PAIR_OPTIONS.values()), pair_based)


LOSSES: dict[str, LossSpec] = {
    "contrastive": _pair_loss(
        "contrastive:Contrastive",
        _parameter("positive_margin", _ANY, "Distance up to which a positive pair costs nothing."),
        _parameter("negative_margin", _ANY, "Distance from which a negative pair costs nothing."),
    ),
    "original_contrastive": _pair_loss(
        "contrastive:OriginalContrastive",
        _MARGIN,
        _parameter("slack", _ANY, "Slack of the positive term of original_contrastive."),
    ),
    "triplet": _pair_loss(
        "triplet:Triplet",
        _MARGIN,
        _parameter("triplets", Choice(("all", "hardest", "semi_hard")), "Selection of triplets in triplet."),
    ),
    "multi_similarity": _pair_loss(
        "multi_similarity:MultiSimilarity",
        _ALPHA,
        _BETA,
        _parameter("threshold", _ANY, "Similarity at which multi_similarity bends."),
    ),
    "margin": _pair_loss(
        "margin:Margin",
        _ALPHA,
        _BETA,
        _parameter("per_class", Switch(), "Learn a boundary for each class in margin."),
        _parameter("beta_weight", _NON_NEGATIVE, "Weight of the mean boundary in margin."),
    ),
    "cross_entropy": _pair_loss("cross_entropy:CrossEntropy", _TEMPERATURE),
    "proxy_anchor": _pair_loss("proxy_anchor:ProxyAnchor", _ALPHA, _MARGIN, pair_based=False),
    "proxy_nca": _pair_loss("proxy_nca:ProxyNCA", _TEMPERATURE, _MARGIN, pair_based=False),
    "soft_triple": _pair_loss(
        "soft_triple:SoftTriple",
        _parameter("scale", _POSITIVE, "Factor on the class similarities of soft_triple."),
        _TEMPERATURE,
        _MARGIN,
        _parameter(
            "center_weight",
            _NON_NEGATIVE,
            "Weight of the distances between proxies of a class in soft_triple.",
        ),
        _parameter(
            "center_normalization", Choice(NORMALIZATIONS), "Normalisation of the proxies in these distances."
        ),
        pair_based=False,
    ),
}

_PROXY_OPTIONS = ("proxies_per_class", "proxy_learning_rate_multiplier")
WRAPPERS: dict[str, WrapperSpec] = {
    "ccp": WrapperSpec(
        "ccp_dml.losses.ccp:CCP",
        (
            _PAIR_OPTIONS["proxies_per_class"],
            _PAIR_WEIGHT,
            _parameter("proxy_weight", _NON_NEGATIVE, "Weight of batch against proxies in ccp."),
            _parameter(
                "pair_normalization",
                Choice(NORMALIZATIONS),
                "Normalisation of the pairs of the batch in ccp (default: --normalization).",
            ),
            _MINE_PAIRS,
            _PAIR_OPTIONS["proxy_learning_rate_multiplier"],
        ),
        hides=_PROXY_OPTIONS,
        only_around_loss=("pair_normalization", "mine_pairs"),
    ),
    "xbm": WrapperSpec(
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
        hides=(*_PROXY_OPTIONS, "proxy_pairs"),
        only_around_loss=("mine_pairs",),
    ),
    "mdr": WrapperSpec(
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
        wraps=(*LOSSES, "ccp", "xbm", "ps", "virtual_softmax"),
    ),
    "ps": WrapperSpec(
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
        pair_based=False,
        wraps=("proxy_nca", "proxy_anchor", "virtual_softmax"),
        hides=("proxy_pairs",),
    ),
    "virtual_softmax": WrapperSpec(
        "ccp_dml.losses.virtual_softmax:VirtualSoftmax",
        (),
        pair_based=False,
        wraps=("proxy_nca",),
        hides=("proxy_pairs",),
    ),
}
