"""Values that follow from others: protocols, folds and repeats, and the runs that they make."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.data.options import ABLATION, ALL_FOLDS, CONVENTIONAL, MLRC, BatchOptions, SplitOptions
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones
from ccp_dml.options import LARGEST_INTEGER

if TYPE_CHECKING:
    from ccp_dml.data.random_streams import IntArray

_DEFAULT_NUM_FOLDS = 4
# Two thirds of the classes train, the last third validates.
_ABLATION = {"num_folds": 3, "fold": 1}
_DEFAULT_VALIDATION_FRACTION = 0.25
_MOST_RUNS = 1000
_DEFAULT_BATCH_SIZE = 32
# Images are shown to the published models at 227 of 256 pixels.
_SHORTER_SIDE_RATIO = 256 / 227


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


def resolve(config: ExperimentConfig) -> ExperimentConfig:
    """Fills in the values of a valid configuration that follow from others."""
    flags = config.flags
    spec = backbones.BACKBONES[flags.backbone]
    image_size = flags.image_size or spec.default_image_size
    weights = flags.backbone_weights or spec.default_weights
    shorter_side = flags.test_shorter_side or round(image_size * _SHORTER_SIDE_RATIO)
    complete = config.replace(
        data_dir=_absolute(flags.data_dir),
        prepared_dir=_absolute(flags.prepared_dir),
        image_size=image_size,
        test_shorter_side=shorter_side if flags.preprocessing == "dml" else None,
        batch_size=flags.batch_size or (None if flags.sampler == "m_per_class" else _DEFAULT_BATCH_SIZE),
        normalization=flags.normalization or losses.normalizations(flags.loss)[0],
        # Names as they are, files with their whole path: a run may be evaluated from elsewhere.
        backbone_weights=_absolute(weights) if backbones.is_file(weights) else weights,
        freeze_batch_norm=_first_of(flags.freeze_batch_norm, weights != backbones.RANDOM),
        initial_weights=_absolute(flags.initial_weights),
        **_of_protocol(config),
    )
    if config.uses_projections:
        monitor = flags.ccp_monitor or ("loss" if flags.ccp_step_at_batch else flags.monitor)
        lower_is_better = _first_of(flags.ccp_stop_at_min, monitor == "loss")
        complete = complete.replace(ccp_monitor=monitor, ccp_stop_at_min=lower_is_better)
    if flags.warm_up_epochs:
        rate = flags.warm_up_learning_rate or flags.learning_rate
        complete = complete.replace(warm_up_learning_rate=rate)
    return complete if is_group(complete) else members(complete)[0].config


def is_group(config: ExperimentConfig) -> bool:
    """Whether a complete configuration stands for several runs: folds, repeats or both."""
    return config.split.fold == ALL_FOLDS or config.run.repeat > 1


def members(config: ExperimentConfig) -> tuple[Member, ...]:
    """The runs that a complete configuration stands for, repeat by repeat.

    Repeat r has the seed `seed + r - 1`, the same for all folds. In a group, fold f and repeat r have the
    folder `fold_f/repeat_r` below that of the group.
    """
    found = []
    for repeat in range(1, config.run.repeat + 1):
        for fold in folds(config.split):
            changes: dict[str, Any] = {
                "fold": None if config.split.fold is None else fold,
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


def folds(split: SplitOptions) -> tuple[int, ...]:
    """The folds that complete options run; (1,) where there are none."""
    if split.fold == ALL_FOLDS:
        assert split.num_folds is not None
        return tuple(range(1, split.num_folds + 1))
    return (1 if split.fold is None else int(split.fold),)


def initial_weights(config: ExperimentConfig, fold: int, repeat: int) -> str | None:
    """`--initial_weights` of one run, its placeholders filled in."""
    pattern = config.model.initial_weights
    if pattern is None:
        return None
    return pattern.replace("{fold}", str(fold)).replace("{repeat}", str(repeat))


def split_classes(split: SplitOptions, batches: BatchOptions, num_classes: int) -> tuple[IntArray, IntArray]:
    """Classes to train on and classes to validate on; the latter may be none.

    Args:
        split: complete, of a single run.
        batches: the batches that the training classes have to suffice for.
        num_classes: number of training classes of the data set.

    Raises:
        UserError: if the options do not fit the number of classes.
    """
    # NumPy, which the help text must not wait for.
    from ccp_dml.data.splits import class_fold, hold_out_classes

    if split.fold is None:
        written = f"--validation_fraction={split.validation_fraction}"
    else:
        written = f"--num_folds={split.num_folds} --fold={split.fold}"
    try:
        if split.fold is not None and split.num_folds is not None:
            train, validation = class_fold(num_classes, split.num_folds, int(split.fold))
        else:
            train, validation = hold_out_classes(num_classes, split.validation_fraction or 0.0)
    except ValueError as error:
        raise UserError(f"{written}: {error}") from error
    if len(validation) == 1:
        raise UserError(
            f"{written}: holds out one of the {num_classes} training classes, and within one class every "
            "neighbour is right; expected at least two"
        )
    if batches.sampler == "m_per_class" and len(train) < batches.classes_per_batch:
        raise UserError(
            f"--classes_per_batch={batches.classes_per_batch}: expected at most {len(train)}, the number of "
            f"classes to train on ({num_classes} less {len(validation)} held out for validation)"
        )
    return train, validation


def monitor_split(config: ExperimentConfig) -> str:
    """The classes that are monitored, `validation` or `test`, also of an incomplete configuration."""
    default = "test" if config.split.protocol == CONVENTIONAL else "validation"
    return config.training.monitor_split or default


def contradictions(config: ExperimentConfig) -> Iterator[str]:
    """Problems of the flags of protocol, folds and repeats, a line each."""
    yield from _contradictions_of_protocol(config)
    flags = config.flags
    if flags.protocol is None and flags.fold is None and flags.num_folds is not None:
        yield f"--num_folds={flags.num_folds} needs --fold: expected 1 to {flags.num_folds}, or all"
    num_folds = flags.num_folds or _DEFAULT_NUM_FOLDS
    if flags.fold is not None:
        if flags.validation_fraction is not None:
            yield (
                f"--validation_fraction={flags.validation_fraction:g} contradicts --fold={flags.fold}, "
                "which is itself the validation part: expected one of the two"
            )
        if flags.fold != ALL_FOLDS and int(flags.fold) > num_folds:
            yield f"--fold={flags.fold}: expected at most --num_folds={num_folds}"
    validates = flags.monitor_split in (None, "validation") and flags.max_epochs > 0
    if flags.protocol is None and flags.validation_fraction == 0 and validates:
        yield "--validation_fraction=0 leaves no classes for --monitor_split=validation: expected more than 0"
    all_folds = flags.fold == ALL_FOLDS or (flags.protocol == MLRC and flags.fold is None)
    runs = flags.repeat * (num_folds if all_folds else 1)
    if runs > _MOST_RUNS:
        yield (f"--num_folds and --repeat={flags.repeat} make {runs:,} runs: expected at most {_MOST_RUNS:,}")
    if flags.seed + flags.repeat - 1 > LARGEST_INTEGER:
        yield (
            f"--repeat={flags.repeat} contradicts --seed={flags.seed}: "
            f"the last repeat's seed, seed + repeat - 1, is expected to be at most {LARGEST_INTEGER}"
        )


def check_initial_weights(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the start weights of every run of a complete configuration exist."""
    for member in members(config):
        path = member.config.model.initial_weights
        if path is None:
            return
        written = f"--initial_weights={path}"
        if os.path.isdir(path):
            if not os.path.exists(os.path.join(path, "checkpoints", "best.index")):
                raise ConfigError(
                    f"{written}: found a folder without checkpoints/best; expected that of a finished run, "
                    "in a run with folds or repeats one such as DIR/fold_{fold}/repeat_{repeat}, or a file "
                    "of weights"
                )
        elif not os.path.isfile(path) and not os.path.isfile(f"{path}.index"):
            raise ConfigError(
                f"{written}: found nothing there; expected the folder of a finished run, or a file of weights"
            )


def _of_protocol(config: ExperimentConfig) -> dict[str, Any]:
    """The values that follow from the protocol."""
    split, monitored = config.split, monitor_split(config)
    values: dict[str, Any] = {"monitor_split": monitored}
    if split.protocol == ABLATION:
        return values | _ABLATION
    if split.protocol == MLRC or split.fold is not None:
        return values | {"num_folds": split.num_folds or _DEFAULT_NUM_FOLDS, "fold": split.fold or ALL_FOLDS}
    if split.validation_fraction is None and split.closed_set == "off":
        values["validation_fraction"] = 0.0 if monitored == "test" else _DEFAULT_VALIDATION_FRACTION
    return values


def _contradictions_of_protocol(config: ExperimentConfig) -> Iterator[str]:
    """Flags that contradict `--protocol`."""
    # Per protocol: flags with the values they may have, besides None, and its own way.
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
    protocol = config.split.protocol
    allowed_values, meaning = allowed.get(protocol, ({}, ""))
    for name, values in allowed_values.items():
        value = getattr(config.flags, name)
        if value is not None and value not in values:
            yield (
                f"--{name}={value} contradicts --protocol={protocol}, {meaning}: "
                "expected one of the two flags"
            )


def _first_of(value: Any, default: Any) -> Any:
    return default if value is None else value


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(os.path.expanduser(path))
