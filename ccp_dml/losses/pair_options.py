"""Which options of a pair loss go together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ccp_dml.geometry import check_distance, check_normalization
from ccp_dml.losses.miners import MINERS
from ccp_dml.losses.pairs import AVERAGES

if TYPE_CHECKING:
    from ccp_dml.losses.pair_loss import PairLoss


def narrowed(loss: PairLoss, option: str, asked: Any, default: Any) -> Any:
    """The value of an option that a formula may be defined for one value of, the loss's `only_<option>`.

    Args:
        loss: the loss.
        option: `'distance'` or `'proxy_anchor'`.
        asked: the value that is asked for; None for none.
        default: the value if nothing is asked for and the formula takes any.

    Raises:
        ValueError: if another value is asked for than the one.
    """
    only = getattr(loss, f"only_{option}")
    if only is not None and asked not in (None, only):
        raise ValueError(f"{option} of {type(loss).__name__} is {asked!r}; it is defined for {only!r} only")
    if asked is not None:
        return asked
    return default if only is None else only


def check(loss: PairLoss) -> None:
    """The options of a loss, all of them set, are known and go together.

    Raises:
        ValueError: if not; the message names the option, what was found and what is expected.
    """
    check_normalization(loss.normalization)
    check_distance(loss.distance)
    if loss.average not in AVERAGES:
        raise ValueError(f"average is {loss.average!r}; expected one of {', '.join(AVERAGES)}")
    if loss.miner is not None and loss.miner not in MINERS:
        raise ValueError(f"miner is {loss.miner!r}; expected None or one of {', '.join(MINERS)}")
    proxies = f"{loss.proxies_per_class} proxies per class and {len(loss.shared_proxies)} shared sets"
    if loss.references_per_batch < 0 or (
        loss.references_per_batch and (loss.proxies_per_class or loss.shared_proxies)
    ):
        raise ValueError(
            f"references_per_batch is {loss.references_per_batch} beside {proxies}; "
            "expected 0, or a positive number without proxies"
        )
    if loss.proxies_per_class < int(not loss.pair_based):
        raise ValueError(
            f"proxies_per_class of {type(loss).__name__} is {loss.proxies_per_class}; "
            f"expected at least {int(not loss.pair_based)}"
        )
    if loss.proxies_per_class and (loss.num_classes is None or loss.embedding_size is None):
        raise ValueError(
            f"proxies_per_class is {loss.proxies_per_class}, but num_classes is {loss.num_classes} and "
            f"embedding_size is {loss.embedding_size}; proxies need both"
        )
