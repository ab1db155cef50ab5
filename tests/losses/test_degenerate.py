"""Values and gradients stay finite where a plain formula divides by zero, overflows, or has no pairs."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.contrastive import Contrastive, OriginalContrastive
from tests.losses.cases import (
    BASIC,
    BATCH,
    DETAILED,
    NESTED,
    SIZE,
    WRAPPED,
    LossCase,
    batch,
    single_paths,
    value_and_gradients,
)

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


# Batches without a scale, a direction or a pair, in the dtypes of embeddings.
DEGENERATE: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "empty": (_LABELS[:0], _EMBEDDINGS[:0]),
    "one sample at the origin": (_LABELS[:1], np.zeros((1, SIZE), np.float32)),
    **{
        name: BATCHES[name]
        for name in ("one class", "no positive pair", "all coincide", "coincide at the origin", "one sample")
    },
}
_REGISTRY = [
    LossCase(path, {"normalization": normalization})
    for path in single_paths()
    for normalization in ("lipschitz", "unit", "none")
]


def _assert_finite(value: tf.Tensor, *gradients: tf.Tensor) -> None:
    assert np.isfinite(value), value
    for gradient in gradients:
        assert np.isfinite(tf.cast(gradient, tf.float32)).all(), gradient


@pytest.mark.parametrize(
    "case, dtype",
    [
        *((case, "float16") for case in [*_REGISTRY, *WRAPPED, *NESTED]),
        *(
            pytest.param(case, dtype, marks=pytest.mark.slow)
            for case in _REGISTRY[::3]
            for dtype in ("bfloat16", "float32")
        ),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_degenerate_batches_in_every_dtype(case: LossCase, dtype: str) -> None:
    for labels, embeddings in DEGENERATE.values():
        value, gradient, of_variables = value_and_gradients(case.build(), labels, tf.cast(embeddings, dtype))
        assert gradient.dtype == dtype
        _assert_finite(value, gradient, *of_variables)


@pytest.mark.parametrize(
    "case, dynamic",
    [
        *((case, False) for case in [*_REGISTRY[::3], *BASIC, *DETAILED, *WRAPPED, *NESTED]),
        *((case, True) for case in WRAPPED),
    ],
    ids=lambda value: getattr(value, "id", None),
)
def test_an_empty_batch_costs_nothing_and_changes_no_statistics(case: LossCase, dynamic: bool) -> None:
    loss = case.build()

    def compute(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        return value_and_gradients(loss, labels, embeddings)

    if dynamic:
        signature = [tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, SIZE])]
        compute = tf.function(compute, input_signature=signature)
    compute(tf.constant(_LABELS), tf.constant(_EMBEDDINGS))
    before = _statistics(loss)
    value, gradient, of_variables = compute(tf.constant(_LABELS[:0]), tf.zeros([0, SIZE]))
    assert float(value) == 0.0
    assert gradient.shape == (0, SIZE)
    assert not any(np.any(tf.convert_to_tensor(g)) for g in of_variables)
    assert _statistics(loss) == before


def _statistics(loss: MetricLoss) -> dict[str, float]:
    names = ("running_mean:0", "running_deviation:0", "batches:0", "rows_written:0")
    return {variable.name: float(variable) for variable in loss.variables if variable.name in names}


@pytest.mark.parametrize("name", ["one sample", "all coincide"])
@pytest.mark.parametrize("path", ["mdr/original_contrastive", "mdr/proxy_nca"])
def test_mdr_does_not_scale_a_batch_without_distances(path: str, name: str) -> None:
    """A division by a floor of 1e-6 would make it a million times as long."""
    loss = LossCase(path, {"normalization": "none"}).build()
    components = loss.components(*BATCHES[name])
    np.testing.assert_allclose(sum(components.values()) - components["mdr_loss"], loss.base(*BATCHES[name]))


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_value_and_gradients_are_finite(case: LossCase, name: str) -> None:
    labels, embeddings = BATCHES[name]
    value, gradient, of_variables = value_and_gradients(case.build(), labels, embeddings)
    _assert_finite(value, gradient, *of_variables)


_WITH_PROXIES = [case for case in BASIC if case.build().proxies is not None]


@pytest.mark.parametrize("case", _WITH_PROXIES, ids=lambda case: case.id)
def test_coincident_proxies_and_samples_have_finite_gradients(case: LossCase) -> None:
    loss = case.build()
    loss.proxies.embeddings.assign(tf.tile(_EMBEDDINGS[:1], [loss.proxies.embeddings.shape[0], 1]))
    value, gradient, of_variables = value_and_gradients(loss, _LABELS, _EMBEDDINGS)
    _assert_finite(value, gradient, *of_variables)


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
