"""Values and gradients stay finite where a plain formula divides by zero, overflows, or has no pairs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.contrastive import Contrastive, OriginalContrastive
from tests.losses.cases import BASIC, BATCH, SIZE, LossCase, batch, value_and_gradients

_RANDOM = np.random.default_rng(0)
_LABELS, _EMBEDDINGS = batch(9)
BATCHES: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "one class": (np.zeros(BATCH, np.int32), _EMBEDDINGS),
    "no positive pair": (np.arange(5, dtype=np.int32), _EMBEDDINGS[:5]),
    "all coincide": (_LABELS, np.tile(_EMBEDDINGS[:1], (BATCH, 1))),
    "coincide at the origin": (_LABELS, np.zeros((BATCH, SIZE), np.float32)),
    "duplicates": (_LABELS, np.concatenate([_EMBEDDINGS[:6], _EMBEDDINGS[:6]])),
    "large": (_LABELS, _EMBEDDINGS * 1e4),
    "huge": (_LABELS, _EMBEDDINGS * 1e15),
    "larger than huge": (_LABELS, _EMBEDDINGS * 1e30),
    "tiny": (_LABELS, _EMBEDDINGS * 1e-20),
    "one huge among tiny": (
        _LABELS,
        _EMBEDDINGS * np.where(np.arange(BATCH) == 5, 1e15, 1e-20)[:, np.newaxis].astype(np.float32),
    ),
    "one sample": (_LABELS[:1], _EMBEDDINGS[:1]),
    "one sample more than references": (_LABELS[:5], _EMBEDDINGS[:5]),
}


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_value_and_gradients_are_finite(case: LossCase, name: str) -> None:
    labels, embeddings = BATCHES[name]
    value, gradient, of_variables = value_and_gradients(case.build(), labels, embeddings)
    assert np.isfinite(value), value
    assert np.isfinite(gradient).all(), gradient
    assert all(np.isfinite(g).all() for g in of_variables)


_WITH_PROXIES = [case for case in BASIC if case.build().proxies is not None]


@pytest.mark.parametrize("case", _WITH_PROXIES, ids=lambda case: case.id)
def test_coincident_proxies_and_samples_have_finite_gradients(case: LossCase) -> None:
    loss = case.build()
    loss.proxies.embeddings.assign(tf.tile(_EMBEDDINGS[:1], [loss.proxies.embeddings.shape[0], 1]))
    value, gradient, of_variables = value_and_gradients(loss, _LABELS, _EMBEDDINGS)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert all(np.isfinite(g).all() for g in of_variables)


@pytest.mark.parametrize("size", [16, 512])
def test_coincident_points_are_not_active(size: int) -> None:
    """With a positive margin of 0, rounding noise of coincident points must not count in the average."""
    loss = Contrastive(0.0, 0.0, num_classes=8, embedding_size=size, proxies_per_class=1)
    samples = np.random.default_rng(size).normal(size=(8, size)).astype(np.float32)
    loss.proxies.embeddings.assign(samples)
    moved = samples.copy()
    moved[0] += 0.01 * np.abs(moved[0])
    moved[0] /= np.linalg.norm(moved[0]) / 0.9
    only_active = float(np.linalg.norm(moved[0] - samples[0] / np.linalg.norm(samples[0])))
    np.testing.assert_allclose(loss(np.arange(8), moved), only_active, rtol=1e-4)


def test_slack_keeps_rounding_of_equal_vectors_inactive() -> None:
    embeddings = np.tile(np.random.default_rng(1).normal(size=(1, 64)).astype(np.float32), (4, 1))
    labels = np.zeros(4, np.int32)
    assert float(OriginalContrastive()(labels, embeddings)) == 0.0
    assert float(OriginalContrastive(slack=-0.1)(labels, embeddings)) > 0.0
