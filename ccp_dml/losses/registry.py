"""Losses by name: `build("ccp/contrastive", ...)` makes the contrastive loss inside the wrapper CCP.

To add a loss, write its class in a new module (see `pair_loss`) and add an entry to `specs.LOSSES`. Each
parameter of the entry becomes a flag; `--loss`, the wrappers, checkpoints and `ccp_dml.losses` then know the
loss. Only `build` imports TensorFlow.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from typing import TYPE_CHECKING, Any

from ccp_dml.kinds import Text
from ccp_dml.losses.options import NORMALIZATIONS
from ccp_dml.losses.specs import LOSSES, WRAPPERS, LossSpec
from ccp_dml.options import Option, Options, option

if TYPE_CHECKING:
    from ccp_dml.losses.base import MetricLoss

__all__ = [
    "LOSSES",
    "WRAPPERS",
    "LossOptions",
    "build",
    "load",
    "loss_options",
    "normalizations",
    "parameters",
    "parse",
    "values",
]

_SPECS: dict[str, LossSpec] = {**LOSSES, **WRAPPERS}


@dataclasses.dataclass(frozen=True)
class LossOptions(Options):
    """The loss, with one field for each parameter of the losses; None leaves the default of the loss."""

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
                raise ValueError(
                    f"parameter {parameter.name} of {spec.target} has another range or help than in another "
                    "loss, but both are the same flag; share one declaration in ccp_dml/losses/specs.py"
                )
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
        ValueError: if a name is unknown, or a wrapper cannot be around the losses inside it.
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
            losses, around = (
                ", ".join(name for name in group if _SPECS[name].pair_based) for group in (LOSSES, WRAPPERS)
            )
            raise ValueError(
                f"loss {path!r}: {wrapper} wraps pair-based losses only ({losses}; or {around} "
                "around one of them)"
            )
    return names


def normalizations(path: str) -> tuple[str, ...]:
    """Normalisations under which training and evaluation measure the same distances, the default first.

    MDR divides embeddings by their mean distance, and evaluation does not. The order of distances is the same
    without a normalisation and at unit length. The proxies of CCP are embeddings of images; inside MDR they
    compare with the scaled embeddings at unit length only.

    Raises:
        ValueError: if the path is invalid.
    """
    names = parse(path)
    if "mdr" not in names:
        return NORMALIZATIONS
    return ("unit",) if "ccp" in names[names.index("mdr") :] else ("none", "unit")


def parameters(path: str) -> frozenset[str]:
    """Names of the parameters that the losses of a path take.

    Raises:
        ValueError: if the path is invalid.
    """
    return frozenset().union(*_parameters_by_loss(parse(path)).values())


def build(
    path: str,
    *,
    num_classes: int,
    embedding_size: int,
    seed: int = 0,
    shard_proxies: bool = False,
    options: dict[str, Any] | None = None,
) -> MetricLoss:
    """Builds the loss of a path.

    Args:
        path: such as `contrastive` or `ccp/contrastive`.
        num_classes: number of training classes.
        embedding_size: dimension of the embeddings.
        seed: seed of everything that a loss draws at random.
        shard_proxies: spread the classes of the proxies over the replicas of the strategy in scope, see
            `docs/scaling.md`.
        options: parameters by name; each goes to the losses of the path that take it.

    Raises:
        ValueError: if the path or an option is invalid, or `shard_proxies` is True for a loss without proxies
            or one that needs all of them in one place.
    """
    options = options or {}
    unused = sorted(set(options) - parameters(path))
    if unused:
        raise ValueError(
            f"loss {path!r} takes no option {', '.join(unused)}; "
            f"it takes {', '.join(sorted(parameters(path)))}"
        )
    given = {
        "num_classes": num_classes,
        "embedding_size": embedding_size,
        "seed": seed,
        "shard_proxies": shard_proxies,
    }
    loss: MetricLoss | None = None
    for name, taken in reversed(_parameters_by_loss(parse(path)).items()):
        kind = load(_SPECS[name].target)
        chosen = {option: value for option, value in options.items() if option in taken}
        if loss is None:
            loss = kind(**chosen, **given)
        else:
            known = inspect.signature(kind).parameters
            loss = kind(loss, **chosen, **{key: value for key, value in given.items() if key in known})
    assert loss is not None
    if shard_proxies:
        if loss.proxies is None:
            raise ValueError(f"shard_proxies is True, but loss {path!r} has no proxies; expected False")
        loss.check_shards()
    return loss


def values(path: str, loss: MetricLoss) -> dict[str, Any]:
    """Returns the value of each parameter of a loss that `build` has made, its defaults included."""
    found: dict[str, Any] = {}
    inside: Any = loss
    for taken in _parameters_by_loss(parse(path)).values():
        config = inside.get_config()
        found |= {name: config[name] for name in taken}
        inside = getattr(inside, "base", None)
    return found


def load(target: str) -> Any:
    """Imports the class of a target `'module:Class'`."""
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name)


def _parameters_by_loss(names: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Parameters that each loss of a path takes; one that several wrappers have is the outermost's."""
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
