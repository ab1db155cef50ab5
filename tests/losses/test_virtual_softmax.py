"""Virtual softmax against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.losses.registry import build
from tests.losses import oracles
from tests.losses.cases import NUM_CLASSES, SIZE, batch
from tests.losses.wrapper_oracles import check_against, unit

_OPTIONS = {"temperature": 0.2, "margin": 0.1}


@pytest.mark.parametrize("kind", ["lipschitz", "unit"])
def test_value_and_gradients_agree_with_loops(kind: str) -> None:
    options = {**_OPTIONS, "normalization": kind, "proxies_per_class": 2, "weight": 0.5}
    loss = build("virtual_softmax/proxy_nca", num_classes=NUM_CLASSES, embedding_size=SIZE, options=options)
    labels, embeddings = batch(2)

    def expected(embeddings: np.ndarray, proxies: np.ndarray) -> float:
        proxy_labels = np.arange(len(proxies)) % NUM_CLASSES
        pairs = oracles.listed_pairs(
            embeddings, labels, proxies, proxy_labels, normalization=kind, distance="cosine"
        )
        for row, negatives, embedding in zip(pairs.distances, pairs.negatives, embeddings):
            negatives.append(len(row))
            row.append(-sum(unit(embedding, kind) ** 2))
        return 0.5 * oracles.proxy_nca(pairs, **_OPTIONS)

    check_against(loss, labels, embeddings, expected)
