"""Values against loops over listed pairs, and gradients against their finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from tests.losses.cases import BASIC, DETAILED, LossCase, batch, value_and_gradients

CASES = BASIC + DETAILED


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_value_agrees_with_loops(case: LossCase) -> None:
    loss = case.build()
    for seed in (1, 2):
        labels, embeddings = batch(seed)
        expected = case.oracle(loss, embeddings.astype(np.float64), labels)
        assert expected != 0.0
        np.testing.assert_allclose(loss(labels, embeddings), expected, rtol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_gradient_for_embeddings_agrees_with_finite_differences(case: LossCase) -> None:
    loss = case.build()
    labels, embeddings = batch(3)
    _, gradient, _ = value_and_gradients(loss, labels, embeddings)
    exact = embeddings.astype(np.float64)
    direction = np.random.default_rng(4).normal(size=exact.shape)
    step = 1e-6
    difference = case.oracle(loss, exact + step * direction, labels) - case.oracle(
        loss, exact - step * direction, labels
    )
    np.testing.assert_allclose(
        np.sum(gradient.numpy() * direction), difference / (2 * step), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_gradients_for_variables_agree_with_finite_differences(case: LossCase) -> None:
    loss = case.build()
    labels, embeddings = batch(5)
    exact = embeddings.astype(np.float64)
    _, _, gradients = value_and_gradients(loss, labels, embeddings)
    # Variables are float32: the step is as large as kinks allow, and the stored values are compared.
    for variable, gradient in zip(loss.trainable_variables, gradients):
        start = variable.numpy()
        direction = np.random.default_rng(6).normal(size=start.shape)
        values, points = [], []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-4 * direction)
            points.append(variable.numpy().astype(np.float64))
            values.append(case.oracle(loss, exact, labels))
        variable.assign(start)
        expected = np.sum(gradient.numpy() * (points[0] - points[1]))
        np.testing.assert_allclose(expected, values[0] - values[1], rtol=5e-3, atol=1e-8)
