"""Which classes validate, and how many runs that makes: protocols, folds and repeats."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccp_dml.config.sections import ABLATION, ALL_FOLDS, CONVENTIONAL, LARGEST_SEED, MLRC
from ccp_dml.errors import ConfigError

if TYPE_CHECKING:
    from ccp_dml.config.experiment_config import ExperimentConfig

_DEFAULT_NUM_FOLDS = 4
# Two thirds of the classes train, the last third validates.
_MOST_RUNS = 1000
_ABLATION = {"num_folds": 3, "fold": 1}
_DEFAULT_VALIDATION_FRACTION = 0.25


@dataclass(frozen=True)
class Member:
    """One run of a group of runs.

    Attributes:
        fold: the part of the training classes that validates, from 1; 1 where there are no folds.
        repeat: from 1.
        config: the configuration of this run alone, in a folder of its own.
    """

    fold: int
    repeat: int
    config: ExperimentConfig

    def __str__(self) -> str:
        return f"fold {self.fold}, repeat {self.repeat} (seed {self.config.run.seed})"


def is_group(config: ExperimentConfig) -> bool:
    """Whether a complete configuration stands for several runs."""
    return config.data.fold == ALL_FOLDS or config.run.repeat > 1


def folds(config: ExperimentConfig) -> tuple[int, ...]:
    """The folds that a complete configuration runs; (1,) where there are none."""
    fold = config.data.fold
    if fold == ALL_FOLDS:
        assert config.data.num_folds is not None
        return tuple(range(1, config.data.num_folds + 1))
    return (1 if fold is None else int(fold),)


def members(config: ExperimentConfig) -> tuple[Member, ...]:
    """The runs that a complete configuration stands for, repeat by repeat.

    Repeat r has the seed `seed + r - 1`, the same for all folds. In a group, fold f and repeat r have the
    folder `fold_f/repeat_r` below that of the group.
    """
    found = []
    for repeat in range(1, config.run.repeat + 1):
        for fold in folds(config):
            changes: dict[str, Any] = {
                "fold": None if config.data.fold is None else fold,
                "repeat": 1,
                "seed": config.run.seed + repeat - 1,
                "initial_weights": initial_weights(config, fold, repeat),
            }
            if is_group(config):
                changes["overwrite"] = False  # The group's folder is cleared as a whole.
                if config.run.run_dir is not None:
                    changes["run_dir"] = os.path.join(config.run.run_dir, f"fold_{fold}", f"repeat_{repeat}")
            found.append(Member(fold, repeat, config.replace(**changes)))
    return tuple(found)


def initial_weights(config: ExperimentConfig, fold: int, repeat: int) -> str | None:
    """`--initial_weights` of one run, its placeholders filled in."""
    pattern = config.model.initial_weights
    if pattern is None:
        return None
    return pattern.replace("{fold}", str(fold)).replace("{repeat}", str(repeat))


def derived(config: ExperimentConfig) -> dict[str, Any]:
    """The flags that follow from the protocol, as `ExperimentConfig.resolve` fills them in."""
    data, training = config.data, config.training
    monitor_split = training.monitor_split or ("test" if data.protocol == CONVENTIONAL else "validation")
    values: dict[str, Any] = {"monitor_split": monitor_split}
    if data.protocol == ABLATION:
        return values | _ABLATION
    if data.protocol == MLRC or data.fold is not None:
        return values | {"num_folds": data.num_folds or _DEFAULT_NUM_FOLDS, "fold": data.fold or ALL_FOLDS}
    if data.validation_fraction is None and data.closed_set == "off":
        nothing = data.protocol == CONVENTIONAL or monitor_split == "test"
        values["validation_fraction"] = 0.0 if nothing else _DEFAULT_VALIDATION_FRACTION
    return values


def contradictions(config: ExperimentConfig) -> Iterator[str]:
    """What is wrong with the flags of protocol, folds and repeats, each problem in one line."""
    yield from _of_the_protocol(config)
    data, training = config.data, config.training
    fraction, monitor_split = data.validation_fraction, training.monitor_split or "validation"
    if data.protocol is None and data.fold is None and data.num_folds is not None:
        yield f"--num_folds={data.num_folds} needs --fold: expected 1 to {data.num_folds}, or all"
    if data.fold is not None:
        if fraction is not None:
            yield (
                f"--validation_fraction={fraction:g} contradicts --fold={data.fold}, "
                "which is itself the validation part: expected one of the two"
            )
        num_folds = data.num_folds or _DEFAULT_NUM_FOLDS
        if data.fold != ALL_FOLDS and int(data.fold) > num_folds:
            yield f"--fold={data.fold}: expected at most --num_folds={num_folds}"
    validates = monitor_split == "validation" and training.max_epochs > 0
    if data.protocol is None and fraction == 0 and validates:
        yield "--validation_fraction=0 leaves no classes for --monitor_split=validation: expected more than 0"
    runs = config.run.repeat
    if data.fold == ALL_FOLDS or (data.protocol == MLRC and data.fold is None):
        runs *= data.num_folds or _DEFAULT_NUM_FOLDS
    if runs > _MOST_RUNS:
        flags = f"--num_folds and --repeat={config.run.repeat}"
        yield f"{flags} make {runs:,} runs: expected at most {_MOST_RUNS:,}"
    if config.run.seed + config.run.repeat - 1 > LARGEST_SEED:
        yield (
            f"--repeat={config.run.repeat} contradicts --seed={config.run.seed}: "
            f"the last repeat's seed, seed + repeat - 1, is expected to be at most {LARGEST_SEED}"
        )


def _of_the_protocol(config: ExperimentConfig) -> Iterator[str]:
    """Flags that say other than `--protocol`."""
    data, training = config.data, config.training
    given = {
        "num_folds": data.num_folds,
        "fold": data.fold,
        "validation_fraction": data.validation_fraction,
        "monitor_split": training.monitor_split,
    }
    # Per protocol: flags with the values they may have, besides None, and what the protocol does instead.
    allowed: dict[str | None, tuple[dict[str, tuple[Any, ...]], str]] = {
        MLRC: ({"validation_fraction": ()}, "whose validation part is one of --num_folds"),
        CONVENTIONAL: (
            {"num_folds": (), "fold": (), "validation_fraction": (0,), "monitor_split": ("test",)},
            "which trains on all training classes and monitors the test classes",
        ),
        ABLATION: (
            {
                "num_folds": (_ABLATION["num_folds"],),
                "fold": (_ABLATION["fold"],),
                "validation_fraction": (),
            },
            "which validates on the last third of the training classes",
        ),
    }
    flags, meaning = allowed.get(data.protocol, ({}, ""))
    for name, values in flags.items():
        value = given[name]
        if value is not None and value not in values:
            yield (
                f"--{name}={value} contradicts --protocol={data.protocol}, {meaning}: "
                "expected one of the two flags"
            )


def check_initial_weights(config: ExperimentConfig) -> None:
    """The weights that every run starts from are there.

    Raises:
        ConfigError: there is neither a finished run nor a file of weights.
    """
    for member in members(config):
        path = member.config.model.initial_weights
        if path is None:
            return
        _check_weights(path)


def _check_weights(path: str) -> None:
    written = f"--initial_weights={path}"
    if os.path.isdir(path):
        if os.path.exists(os.path.join(path, "checkpoints", "best.index")):
            return
        raise ConfigError(
            f"{written}: found a folder without checkpoints/best; expected that of a finished run, in a run "
            "with folds or repeats one such as DIR/fold_{fold}/repeat_{repeat}, or a file of weights"
        )
    if not os.path.isfile(path) and not os.path.isfile(f"{path}.index"):
        raise ConfigError(
            f"{written}: found nothing there; expected the folder of a finished run, or a file of weights"
        )
