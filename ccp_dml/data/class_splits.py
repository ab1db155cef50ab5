"""Zero-shot splits: training and validation sets that share no class."""

from __future__ import annotations

import numpy as np

from ccp_dml.data.permutations import IntArray


def class_fold(num_classes: int, num_folds: int, fold: int) -> tuple[IntArray, IntArray]:
    """Classes of one fold of a cross-validation over classes.

    The classes in order are cut into `num_folds` blocks of almost equal size; fold 1 validates on the last
    block, fold 2 on the one before it, and so on. With a single fold nothing is held out.

    Args:
        num_classes: number of classes C.
        num_folds: number of blocks, 1..C.
        fold: which fold, 1..num_folds.

    Returns:
        (training classes, validation classes), both int64, ascending; a class's place is its new label.

    Raises:
        ValueError: if an argument is out of range.
    """
    if not 1 <= num_folds <= num_classes:
        raise ValueError(
            f"the number of folds must be between 1 and the {num_classes} classes, found {num_folds}"
        )
    if not 1 <= fold <= num_folds:
        raise ValueError(f"the fold must be between 1 and {num_folds}, found {fold}")
    classes = np.arange(num_classes)
    if num_folds == 1:
        return classes, classes
    bounds = np.floor(np.linspace(0, num_classes, num_folds + 1)).astype(np.int64)
    validation = classes[bounds[num_folds - fold] : bounds[num_folds - fold + 1]]
    return np.setdiff1d(classes, validation), validation


def hold_out_classes(num_classes: int, fraction: float) -> tuple[IntArray, IntArray]:
    """Holds out the last classes for validation.

    Args:
        num_classes: number of classes C.
        fraction: share of the classes to hold out, 0 <= fraction < 1; rounded to a whole number of classes,
            at least one unless the fraction is 0.

    Returns:
        (training classes, validation classes), both int64, ascending.

    Raises:
        ValueError: if the fraction is out of range or leaves no class to train on.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"the fraction of held-out classes must be in [0, 1), found {fraction}")
    held_out = max(1, round(fraction * num_classes)) if fraction else 0
    if held_out >= num_classes:
        raise ValueError(
            f"holding out the share {fraction:g} of {num_classes} class(es) leaves none to train on"
        )
    classes = np.arange(num_classes)
    return classes[: num_classes - held_out], classes[num_classes - held_out :]
