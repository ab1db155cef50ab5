"""When a problem instance ends: rules that look at the instance after each validation.

The rules are asked only once the instance has had its least number of validations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

RESET_RULES = ("patience", "staleness", "fixed")


@dataclass(frozen=True)
class InstanceView:
    """What a rule may look at.

    Attributes:
        validations: validations of this instance so far, this one included.
        stale: how many of them came since the best score of the instance.
        staleness: measures how far the images of the proxies have moved, see `staleness.py`. It embeds
            images, so it is only called by a rule that needs it.
    """

    validations: int
    stale: int
    staleness: Callable[[], float]


class ResetRule(Protocol):
    """A rule that ends problem instances."""

    @property
    def uses_score(self) -> bool:
        """Whether the solution of an instance is its best-scoring point; otherwise it is its last one."""

    def due(self, instance: InstanceView) -> bool:
        """Whether the instance ends now."""


@dataclass(frozen=True)
class PatienceRule:
    """Ends an instance whose score has not improved for `patience` validations: the rule of the paper."""

    patience: int = 3
    uses_score = True

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(
                f"The patience of a problem instance is {self.patience}; at least 1 is expected."
            )

    def due(self, instance: InstanceView) -> bool:
        """Whether the patience is used up."""
        return instance.stale >= self.patience


@dataclass(frozen=True)
class FixedRule:
    """Ends an instance after its least number of validations, whatever the score."""

    uses_score = False

    def due(self, instance: InstanceView) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class StalenessRule:
    """Ends an instance when its proxies no longer stand for the images that they were chosen from.

    Attributes:
        threshold: largest staleness that is tolerated, relative to the spread of the proxies; positive.
    """

    threshold: float = 0.5
    uses_score = True

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"The staleness threshold is {self.threshold}; a positive number is expected.")

    def due(self, instance: InstanceView) -> bool:
        """Whether the measured staleness is above the threshold."""
        return instance.staleness() > self.threshold


@dataclass(frozen=True)
class AtMost:
    """Ends an instance by another rule, and after `validations` validations in any case."""

    rule: ResetRule
    validations: int

    def __post_init__(self) -> None:
        if self.validations < 1:
            raise ValueError(f"max_iterations of an instance is {self.validations}; at least 1 is expected.")

    @property
    def uses_score(self) -> bool:
        """As the other rule does."""
        return self.rule.uses_score

    def due(self, instance: InstanceView) -> bool:
        """Whether the other rule is due or the number is reached."""
        return instance.validations >= self.validations or self.rule.due(instance)


def make_reset_rule(
    name: str = "patience",
    *,
    patience: int = 3,
    staleness_threshold: float = 0.5,
    max_iterations: int | None = None,
) -> ResetRule:
    """Creates a rule by name.

    Args:
        name: one of `RESET_RULES`.
        patience: of the rule `patience`.
        staleness_threshold: of the rule `staleness`.
        max_iterations: largest number of validations of an instance; None for no limit.

    Returns:
        The rule.

    Raises:
        ValueError: if the name is not one that exists or a number is out of its range.
    """
    rules: dict[str, Callable[[], ResetRule]] = {
        "patience": lambda: PatienceRule(patience),
        "staleness": lambda: StalenessRule(staleness_threshold),
        "fixed": FixedRule,
    }
    if name not in rules:
        raise ValueError(f"The reset rule is {name!r}; one of {', '.join(RESET_RULES)} is expected.")
    rule = rules[name]()
    return rule if max_iterations is None else AtMost(rule, max_iterations)
