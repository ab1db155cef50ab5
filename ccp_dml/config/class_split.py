"""Which of the training classes are held out for validation, and whether enough are left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ccp_dml.config.sections import DataConfig
from ccp_dml.errors import UserError

if TYPE_CHECKING:
    from ccp_dml.data.random_streams import IntArray


def split_classes(config: DataConfig, num_classes: int) -> tuple[IntArray, IntArray]:
    """Classes to train on and classes to validate on; the latter are none if nothing is to be held out.

    Args:
        config: of a single run, with its derived values filled in (`ExperimentConfig.resolve`).
        num_classes: number of training classes of the data set.

    Raises:
        UserError: if the flags do not fit the number of classes.
    """
    train, validation = _split(config, num_classes)
    if len(validation) == 1:
        raise UserError(
            f"{_written(config)}: holds out one of the {num_classes} training classes, and within one class "
            "every neighbour is right; expected at least two"
        )
    if config.sampler == "m_per_class" and len(train) < config.classes_per_batch:
        raise UserError(
            f"--classes_per_batch={config.classes_per_batch}: expected at most {len(train)}, the number of "
            f"classes to train on ({num_classes} less {len(validation)} held out for validation)"
        )
    return train, validation


def _split(config: DataConfig, num_classes: int) -> tuple[IntArray, IntArray]:
    # NumPy, which the help text must not wait for.
    from ccp_dml.data.splits import class_fold, hold_out_classes

    try:
        if config.fold is not None and config.num_folds is not None:
            return class_fold(num_classes, config.num_folds, int(config.fold))
        return hold_out_classes(num_classes, config.validation_fraction or 0.0)
    except ValueError as error:
        raise UserError(f"{_written(config)}: {error}") from error


def _written(config: DataConfig) -> str:
    if config.fold is not None:
        return f"--num_folds={config.num_folds} --fold={config.fold}"
    return f"--validation_fraction={config.validation_fraction}"
