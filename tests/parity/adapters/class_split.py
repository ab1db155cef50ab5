"""Labels of the folds of a cross-validation over classes."""

from __future__ import annotations

import numpy as np

from ccp_dml.data.splits import class_fold
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares the new labels of every class; -1 stands for a class that is not in the set."""
    config = case.config
    train, validation = class_fold(config["num_classes"], config["num_splits"], config["split_id"])
    comparisons = [
        Comparison("train_classes", np.array(len(train)), np.array(config["train_classes"]), rtol=0)
    ]
    for name, classes in zip(("train_label", "val_label"), (train, validation)):
        labels = np.full(config["num_classes"], -1)
        labels[classes] = np.arange(len(classes))
        comparisons.append(Comparison(name, labels, case.arrays[name], rtol=0))
    return comparisons
