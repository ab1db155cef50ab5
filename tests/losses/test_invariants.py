"""Properties of the basic losses on any batch: invariance, sign, forms of labels, diagnostics."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.losses.base import MetricLoss
from tests.losses.cases import BASIC, SIZE, LossCase, batch, value_and_gradients

_BUILT = {case.id: case.build() for case in BASIC}
# The first samples of a batch are its references: their order matters.
_ORDERED = tuple(case.id for case in BASIC if case.options.get("references_per_batch"))
_SEEDS = st.integers(0, 10**6)


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=_SEEDS)
def test_the_order_of_the_batch_does_not_matter(case: LossCase, seed: int) -> None:
    loss = _BUILT[case.id]
    labels, embeddings = batch(seed)
    order = np.random.default_rng(seed).permutation(len(labels))
    if case.id in _ORDERED:
        order = np.concatenate([np.arange(4), 4 + np.random.default_rng(seed).permutation(len(labels) - 4)])
    value, gradient, _ = value_and_gradients(loss, labels, embeddings)
    permuted, permuted_gradient, _ = value_and_gradients(loss, labels[order], embeddings[order])
    np.testing.assert_allclose(permuted, value, rtol=1e-5)
    np.testing.assert_allclose(permuted_gradient, gradient.numpy()[order], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=_SEEDS)
def test_rotating_embeddings_and_proxies_does_not_matter(case: LossCase, seed: int) -> None:
    loss = case.build()
    labels, embeddings = batch(seed)
    rotation = np.linalg.qr(np.random.default_rng(seed).normal(size=(SIZE, SIZE)))[0].astype(np.float32)
    value = loss(labels, embeddings).numpy()
    if loss.proxies is not None:
        loss.proxies.embeddings.assign(loss.proxies.embeddings @ rotation)
    np.testing.assert_allclose(loss(labels, embeddings @ rotation), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=_SEEDS)
def test_is_not_negative_and_is_the_sum_of_its_components(case: LossCase, seed: int) -> None:
    loss = _BUILT[case.id]
    labels, embeddings = batch(seed)
    value = float(loss(labels, embeddings))
    components = loss.components(labels, embeddings)
    assert value >= 0.0
    np.testing.assert_allclose(value, sum(float(component) for component in components.values()), rtol=1e-6)
    expected = {"proxy_loss"} if loss.proxies is not None else {"pair_loss"}
    assert set(components) == ({"pair_loss", "proxy_loss"} if case.path.startswith("ccp/") else expected)


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_all_forms_of_labels_give_the_same_loss(case: LossCase) -> None:
    loss: MetricLoss = _BUILT[case.id]
    labels, embeddings = batch(7)
    expected = loss(labels, embeddings).numpy()
    with_ids = np.stack([labels, 100 + np.arange(len(labels))], axis=1)
    for form in (labels[:, np.newaxis], with_ids, labels.astype(np.int64), labels.astype(np.uint8)):
        assert loss(form, embeddings).numpy() == expected


@pytest.mark.parametrize("case", BASIC, ids=lambda case: case.id)
def test_diagnostics_describe_the_pairs(case: LossCase) -> None:
    loss = _BUILT[case.id]
    labels, embeddings = batch(8)
    figures = {name: figure.numpy() for name, figure in loss.diagnostics(labels, embeddings).items()}
    assert 0.0 < figures["active_pairs"] <= 1.0
    np.testing.assert_allclose(
        figures["embedding_norm"], np.mean(np.linalg.norm(embeddings, axis=1)), rtol=1e-5
    )
    if case.path.startswith("ccp/") or (
        loss.proxies is None and not case.options.get("references_per_batch")
    ):
        same = labels[:, np.newaxis] == labels
        assert len(figures["positive_distances"]) == same.sum() - len(labels)
        assert len(figures["negative_distances"]) == (~same).sum()
    if case.path.startswith("ccp/"):
        k = loss.proxies.proxies_per_class
        assert len(figures["proxy_positive_distances"]) == k * len(labels)
        assert len(figures["proxy_negative_distances"]) == k * 4 * len(labels)
