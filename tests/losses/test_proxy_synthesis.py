"""Proxy synthesis against loops in float64, and the distribution of its rates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.proxy_synthesis import ProxySynthesis, symmetric_beta
from ccp_dml.losses.registry import build
from tests.losses import oracles
from tests.losses.cases import NUM_CLASSES, SIZE, batch
from tests.losses.wrapper_oracles import check_against, synthetic

_LOSS_OPTIONS = {
    "proxy_nca": {"temperature": 0.2, "margin": 0.1},
    "proxy_anchor": {"alpha": 8.0, "margin": 0.1},
}


def _oracle(name: str, options: dict[str, Any], kind: str, *arrays: Any) -> float:
    pairs = oracles.listed_pairs(
        *arrays, normalization=kind, distance="cosine", proxy_anchor=name == "proxy_anchor"
    )
    return getattr(oracles, name)(pairs, **options)


@pytest.mark.parametrize("kind", ["lipschitz", "unit"])
@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("name", _LOSS_OPTIONS)
def test_proxy_synthesis_agrees_with_loops(name: str, share: float, kind: str) -> None:
    options = {**_LOSS_OPTIONS[name], "normalization": kind, "proxies_per_class": 2}
    synthesis = {"mixing_rate": 0.3, "synthetic_share": share}
    loss = build(f"ps/{name}", num_classes=NUM_CLASSES, embedding_size=SIZE, options={**options, **synthesis})
    random = np.random.default_rng(0)
    loss.proxies.embeddings.assign(random.normal(size=loss.proxies.embeddings.shape))
    labels, embeddings = batch(1)
    labels[9] = labels[8]  # Neighbours of one class.

    def expected(embeddings: np.ndarray, proxies: np.ndarray) -> float:
        count = round(share * len(labels))
        more = synthetic(embeddings, labels, proxies, 0.3, count, kind, NUM_CLASSES)
        return _oracle(
            name,
            _LOSS_OPTIONS[name],
            kind,
            np.concatenate([embeddings, more[0]]),
            np.concatenate([labels, more[1]]),
            np.concatenate([proxies, more[2]]),
            np.concatenate([np.arange(len(proxies)) % NUM_CLASSES, more[3]]),
        )

    check_against(loss, labels, embeddings, expected)


def test_labels_of_a_sample_major_batch() -> None:
    loss = build("ps/proxy_nca", num_classes=7, embedding_size=SIZE, options={"mixing_rate": 0.5})
    labels = np.array([6, 2, 4, 6, 2, 4], np.int32)
    synthesis = loss.synthesize(labels, np.ones((6, SIZE), np.float32), 0.5)
    np.testing.assert_array_equal(synthesis.labels, [7, 8, 9, 7, 8, 9])
    np.testing.assert_array_equal(synthesis.proxy_labels, [7, 8, 9, 7, 8, 9])


def _random(seed: int) -> ProxySynthesis:
    return build("ps/proxy_nca", num_classes=NUM_CLASSES, embedding_size=SIZE, seed=seed)


def test_rates_are_a_function_of_seed_and_step() -> None:
    def rates(loss: ProxySynthesis, steps: int) -> list[float]:
        found = []
        for _ in range(steps):
            found.append(float(loss.next_rate()))
            loss(*batch(0))
        return found

    first = _random(1)
    assert first.seed == 1
    drawn = rates(first, 6)
    assert len(set(drawn)) == 6
    assert all(0.0 <= rate <= 1.0 for rate in drawn)
    resumed = _random(1)
    resumed.steps.assign(4)
    assert rates(resumed, 2) == drawn[4:]
    assert rates(_random(2), 6) != drawn
    compiled = tf.function(lambda y, e: first(y, e), jit_compile=True)
    assert np.isfinite(compiled(*batch(0)))
    assert int(first.steps) == 7


@pytest.mark.parametrize("alpha", [0.05, 0.4, 1.0, 5.0])
def test_rates_have_the_beta_distribution(alpha: float) -> None:
    @tf.function
    def rates() -> tf.Tensor:
        return tf.map_fn(
            lambda i: symmetric_beta(alpha, tf.stack([7, i])), tf.range(4000), fn_output_signature=tf.float32
        )

    draws = rates().numpy()
    quantiles = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    below = [np.mean(draws <= q) for q in quantiles]
    expected = tf.math.betainc(tf.fill([5], alpha), alpha, tf.constant(quantiles, tf.float32))
    np.testing.assert_allclose(below, expected, atol=0.03)
