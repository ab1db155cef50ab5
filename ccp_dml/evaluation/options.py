"""The options of the retrieval metrics."""

from __future__ import annotations

import dataclasses
import re

from ccp_dml.kinds import Integer, Integers, Number
from ccp_dml.options import Change, Options, option

METRICS = ("map_at_r", "r_precision", "precision_at_1")
# Names of metrics at a cut-off, such as recall_at_4: the option that lists the cut-offs, and the cut-off.
METRIC_AT_K = re.compile(r"((?:recall|precision|map)_at)_([1-9][0-9]*)")


@dataclasses.dataclass(frozen=True)
class EvaluationOptions(Options):
    """Retrieval metrics."""

    recall_at: tuple[int, ...] = option((1, 2, 4, 8), Integers(), "k of the reported R@k.")
    precision_at: tuple[int, ...] = option((), Integers(), "k of the reported P@k.")
    map_at: tuple[int, ...] = option((), Integers(), "k of the reported MAP@k.")
    track_test: int = option(
        0,
        Integer(0),
        "Epochs between scores of the test classes, which only become curves; 0: none.",
        Change.FREE,
    )
    test_crops: int = option(
        0,
        Integer(0, 256),
        "Number of crops of a test image whose embeddings are averaged with its own; 0: none.",
    )
    pca_dim: int | None = option(
        None,
        Integer(1),
        "Dimensions of the embeddings in the final test, after a PCA of training embeddings (default: all).",
    )
    validation_cache_mb: float = option(
        256.0,
        Number(low=0),
        "Memory for prepared validation images, in megabytes; more images are prepared anew in every epoch.",
        Change.FREE,
        only_with={"monitor_split": (None, "validation"), "protocol": (None, "mlrc", "ablation")},
    )
    evaluation_batch_size: int = option(
        128, Integer(1), "Number of images to embed at once in evaluation.", Change.FREE
    )
