"""The paper's row that belongs to a group of runs, and what its runs do otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.sections import ALL_FOLDS
from ccp_dml.evaluation import report
from ccp_dml.evaluation.report import Aggregate


def published(
    config: ExperimentConfig, evaluated: ExperimentConfig, aggregates: Mapping[str, Aggregate]
) -> dict[str, Any]:
    """The paper's values for separate and concatenated results, where the protocol is that of the paper.

    Args:
        config: the group's.
        evaluated: the same, or with another data set or PCA.
        aggregates: the results by kind.

    Returns:
        `paper` and, unless that is empty, `paper_method` and `paper_note` of a `GroupReport`.
    """
    of_paper = config.data.fold == ALL_FOLDS and config.data.num_folds == report.NUM_FOLDS
    same_test = evaluated.data.dataset == config.data.dataset and evaluated.evaluation.pca_dim is None
    found = {}
    if of_paper and same_test:
        for kind in ("separate", "concatenated"):
            row = report.published(config.data.dataset, config.loss.loss, aggregates[kind].dimensions)
            if row is not None:
                found[kind] = row
    if not found:
        return {"paper": {}}
    (method,) = {method for method, _ in found.values()}
    values = {kind: means for kind, (_, means) in found.items()}
    return {"paper": values, "paper_method": method, "paper_note": "; ".join(_differences(config))}


def _differences(config: ExperimentConfig) -> list[str]:
    """Another backbone, and flags that leave out or change images or labels."""
    data, backbone = config.data, config.model.backbone
    flags = {
        "--check_counts=false": not data.check_counts,
        "--skip_bad_images": data.skip_bad_images,
        "--crop_to_box": data.crop_to_box,
        f"--label_noise={data.label_noise:g}": data.label_noise > 0,
        f"--prepared_shorter_side={data.prepared_shorter_side}": bool(data.prepared_shorter_side),
    }
    given = [flag for flag, is_given in flags.items() if is_given]
    other_backbone = f"its backbone is {report.BACKBONE}, here {backbone}"
    other_images = f"other images or labels here: {' '.join(given)}"
    return [*([other_backbone] if backbone != report.BACKBONE else []), *([other_images] if given else [])]
