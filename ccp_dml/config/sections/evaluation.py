"""The flags of the retrieval metrics."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import Change, flag
from ccp_dml.config.values import Integer, Integers, Number


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Retrieval metrics."""

    recall_at: tuple[int, ...] = flag((1, 2, 4, 8), Integers(), "k of the reported R@k.")
    precision_at: tuple[int, ...] = flag((), Integers(), "k of the reported P@k.")
    map_at: tuple[int, ...] = flag((), Integers(), "k of the reported MAP@k.")
    track_test: int = flag(
        0,
        Integer(0),
        "Score the test classes every so many epochs, for curves; decides nothing. 0: never.",
        Change.FREE,
    )
    test_crops: int = flag(
        0, Integer(0, 256), "Crops of a test image whose embeddings are averaged with its own; 0: none."
    )
    pca_dim: int | None = flag(
        None,
        Integer(1),
        "Reduce the embeddings of the final test to so many dimensions, by a PCA of training embeddings.",
    )
    validation_cache_mb: float = flag(
        256.0,
        Number(low=0),
        "Keep the prepared validation images in memory if they take no more than so many megabytes.",
        Change.FREE,
    )
    evaluation_batch_size: int = flag(128, Integer(1), "Images embedded at once in evaluation.", Change.FREE)
