"""Values that follow from others, and the runs that protocols, folds and repeats make."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.data.options import ABLATION, ALL_FOLDS, CONVENTIONAL, MLRC, BatchOptions, SplitOptions
from ccp_dml.data.random_streams import CLASS_SPLIT, IntArray, random_permutation
from ccp_dml.data.splits import class_fold, hold_out_classes
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.kinds import LARGEST_INTEGER
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones
from ccp_dml.projections.options import ProjectionOptions

_DEFAULT_NUM_FOLDS = 4
# Two thirds of the classes train, the last third validates.
_ABLATION = {"num_folds": 3, "fold": 1}
_DEFAULT_VALIDATION_FRACTION = 0.25
_MOST_RUNS = 1000
_DEFAULT_BATCH_SIZE = 32
# The published results are from crops of 227 pixels of images of 256.


@dataclass(frozen=True)
class Member:
    """One run of a group of runs.

    Attributes:
        fold: number of the part of the training classes that validates, from 1; 1 without folds.
        repeat: number of the repeat, from 1.
        config: configuration of this run, which has its own folder.
    """

    fold: int
    repeat: int
    config: ExperimentConfig

    def __str__(self) -> str:
        return f"fold {self.fold}, repeat {self.repeat} (seed {self.config.run.seed})"


def resolve(config: ExperimentConfig) -> ExperimentConfig:
    """Fills in the values of a valid configuration that follow from others."""
    flags = config.flags
    spec = backbones.resolve(flags.backbone)
    images = config.images.completed(spec.default_image_size)
    weights = flags.backbone_weights or spec.default_weights
    complete = config.replace(
        data_dir=_absolute(flags.data_dir),
        prepared_dir=_absolute(flags.prepared_dir),
        image_size=images.image_size,
        test_shorter_side=images.test_shorter_side,
        batch_size=flags.batch_size or (None if flags.sampler == "m_per_class" else _DEFAULT_BATCH_SIZE),
        normalization=flags.normalization or losses.normalizations(flags.loss)[0],
        # Absolute paths, as the run may be evaluated from another working directory.
        backbone=_absolute(flags.backbone) if backbones.is_saved_model(flags.backbone) else flags.backbone,
        backbone_weights=_absolute(weights) if backbones.is_file(weights) else weights,
        freeze_batch_norm=_first_of(flags.freeze_batch_norm, weights != backbones.RANDOM),
        initial_weights=_absolute(flags.initial_weights),
        **_of_protocol(config),
    )
    if config.uses_projections:
        monitor = flags.ccp_monitor or ("loss" if flags.ccp_step_at_batch else flags.monitor)
        lower_is_better = _first_of(flags.ccp_stop_at_min, monitor == "loss")
        complete = complete.replace(ccp_monitor=monitor, ccp_stop_at_min=lower_is_better)
    else:
        complete = replace(complete, projections=ProjectionOptions())
    if flags.warm_up_epochs:
        rate = flags.warm_up_learning_rate or flags.learning_rate
        complete = complete.replace(warm_up_learning_rate=rate)
    return complete if is_group(complete) else members(complete)[0].config


def is_group(config: ExperimentConfig) -> bool:
    """Returns True if a complete configuration stands for several runs: folds, repeats or both."""
    return config.split.fold == ALL_FOLDS or config.run.repeat > 1


def members(config: ExperimentConfig) -> tuple[Member, ...]:
    """The runs that a complete configuration stands for, repeat by repeat.

    Repeat r has the seed `seed + r - 1`, the same for all folds. In a group, the run of fold f and repeat r
    has the folder `fold_f/repeat_r` inside the folder of the group.
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
    """The numbers of the folds of complete options; (1,) without folds."""
    if split.fold == ALL_FOLDS:
        assert split.num_folds is not None
        return tuple(range(1, split.num_folds + 1))
    return (1 if split.fold is None else int(split.fold),)


def initial_weights(config: ExperimentConfig, fold: int, repeat: int) -> str | None:
    """The value of `--initial_weights` of one run, with its placeholders filled in."""
    pattern = config.model.initial_weights
    if pattern is None:
        return None
    return pattern.replace("{fold}", str(fold)).replace("{repeat}", str(repeat))


def split_classes(
    split: SplitOptions,
    batches: BatchOptions,
    num_classes: int,
    *,
    seed: int | None = None,
    has_validation: bool = False,
) -> tuple[IntArray, IntArray]:
    """Splits the training classes of a data set into those that train and those that validate.

    Args:
        split: complete options of a single run.
        batches: options of the batches, which need enough classes.
        num_classes: number of training classes of the data set.
        seed: seed of a random order of the classes; None for their order in the data set.
        has_validation: True if the data set has validation classes beside the training classes.

    Returns:
        Two arrays of class numbers, ascending; the second one may be empty.

    Raises:
        UserError: if the options do not fit the number of classes.
    """
    if has_validation and split.fold is not None:
        raise UserError(
            f"--fold={split.fold}: the manifest has validation images; expected no --fold, or a manifest "
            "without them"
        )
    if split.fold is None:
        written = f"--validation_fraction={split.validation_fraction}"
    else:
        written = f"--num_folds={split.num_folds} --fold={split.fold}"
    try:
        if split.fold is not None and split.num_folds is not None:
            train, validation = class_fold(num_classes, split.num_folds, int(split.fold))
        else:
            fraction = 0.0 if has_validation else split.validation_fraction or 0.0
            train, validation = hold_out_classes(num_classes, fraction)
    except ValueError as error:
        raise UserError(f"{written}: {error}") from error
    if seed is not None:
        order = random_permutation(num_classes, seed, CLASS_SPLIT)
        train, validation = np.sort(order[train]), np.sort(order[validation])
    if len(validation) == 1:
        raise UserError(
            f"{written}: holds out one of the {num_classes} training classes, and within one class every "
            "neighbour is correct; expected at least two"
        )
    if batches.sampler == "m_per_class" and len(train) < batches.classes_per_batch:
        raise UserError(
            f"--classes_per_batch={batches.classes_per_batch}: expected at most {len(train)}, the number of "
            f"classes to train on ({num_classes} minus {len(validation)} held out for validation)"
        )
    return train, validation


def monitor_split(config: ExperimentConfig) -> str:
    """The monitored classes, `validation` or `test`; the configuration may be incomplete."""
    default = "test" if config.split.protocol == CONVENTIONAL else "validation"
    return config.training.monitor_split or default


def contradictions(config: ExperimentConfig) -> Iterator[str]:
    """Messages on contradictions between the flags of protocol, folds and repeats."""
    yield from _contradictions_of_protocol(config)
    flags = config.flags
    if flags.protocol is None and flags.fold is None and flags.num_folds is not None:
        expected = f"expected --fold, 1 to {flags.num_folds} or all"
        yield f"--num_folds={flags.num_folds}: has no effect without --fold; {expected}"
    num_folds = flags.num_folds or _DEFAULT_NUM_FOLDS
    if flags.fold is not None:
        if flags.validation_fraction is not None:
            yield (
                f"--validation_fraction={flags.validation_fraction:g}: contradicts --fold={flags.fold}, "
                "which selects the validation classes itself; expected one of the two"
            )
        if flags.fold != ALL_FOLDS and int(flags.fold) > num_folds:
            yield f"--fold={flags.fold}: expected at most --num_folds={num_folds}"
    validates = flags.monitor_split in (None, "validation") and flags.max_epochs > 0
    if flags.protocol is None and flags.validation_fraction == 0 and validates:
        yield "--validation_fraction=0: contradicts --monitor_split=validation; expected more than 0"
    all_folds = flags.fold == ALL_FOLDS or (flags.protocol == MLRC and flags.fold is None)
    runs = flags.repeat * (num_folds if all_folds else 1)
    if runs > _MOST_RUNS:
        expected = f"expected at most {_MOST_RUNS:,}"
        yield f"--repeat={flags.repeat}: makes {runs:,} runs with --num_folds={num_folds}; {expected}"
    if flags.seed + flags.repeat - 1 > LARGEST_INTEGER:
        yield (
            f"--repeat={flags.repeat}: contradicts --seed={flags.seed}; expected the seed of the last "
            f"repeat, seed + repeat - 1, to be at most {LARGEST_INTEGER}"
        )


def check_initial_weights(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the initial weights of every run of a complete configuration exist."""
    for member in members(config):
        path = member.config.model.initial_weights
        if path is None:
            return
        written = f"--initial_weights={path}"
        if os.path.isdir(path):
            if not os.path.exists(os.path.join(path, "checkpoints", "best.index")):
                raise ConfigError(
                    f"{written}: found a folder without checkpoints/best; expected the folder of a finished "
                    "run (DIR/fold_{fold}/repeat_{repeat} of a group), or a file of weights"
                )
        elif not os.path.isfile(path) and not os.path.isfile(f"{path}.index"):
            raise ConfigError(
                f"{written}: does not exist; expected the folder of a finished run, or a file of weights"
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
    """Messages on flags that contradict `--protocol`."""
    # By protocol: flags with the values that they may have, besides None, and the reason.
    allowed: dict[str | None, tuple[dict[str, tuple[Any, ...]], str]] = {
        MLRC: ({"validation_fraction": ()}, "which validates on one of --num_folds parts"),
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
    allowed_values, reason = allowed.get(protocol, ({}, ""))
    for name, values in allowed_values.items():
        value = getattr(config.flags, name)
        if value is not None and value not in values:
            yield (f"--{name}={value}: contradicts --protocol={protocol}, {reason}; expected one of the two")


def _first_of(value: Any, default: Any) -> Any:
    return default if value is None else value


def _absolute(path: str | None) -> str | None:
    return None if path is None else os.path.abspath(path)
