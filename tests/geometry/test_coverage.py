"""Covering radius and spread of proxies against loops."""

from __future__ import annotations

import numpy as np

from ccp_dml.geometry import covering_radius, proxy_spread


def test_covering_radius_agrees_with_loops() -> None:
    random = np.random.default_rng(0)
    embeddings, labels = random.normal(size=(30, 3)), random.integers(0, 4, 30)
    proxies = random.normal(size=(2, 4, 3))
    expected = []
    for c in range(4):
        nearest = [
            min(np.linalg.norm(embedding - proxy) for proxy in proxies[:, c])
            for embedding in embeddings[labels == c]
        ]
        expected.append(max(nearest))
    np.testing.assert_allclose(covering_radius(embeddings, labels, proxies), expected, rtol=1e-5)


def test_class_without_images_has_no_radius() -> None:
    radii = covering_radius(np.ones((1, 2)), np.array([1]), np.zeros((1, 3, 2))).numpy()
    np.testing.assert_allclose(radii, [np.nan, 2**0.5, np.nan], rtol=1e-6)


def test_proxies_that_are_images_cover_their_class() -> None:
    embeddings = np.array([[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(covering_radius(embeddings, [0, 0], embeddings[:, np.newaxis]), [0.0])


def test_proxy_spread_is_the_mean_distance_of_the_pairs() -> None:
    proxies = np.random.default_rng(1).normal(size=(3, 2, 4))
    expected = [
        np.mean([np.linalg.norm(proxies[i, c] - proxies[j, c]) for i, j in ((0, 1), (0, 2), (1, 2))])
        for c in range(2)
    ]
    np.testing.assert_allclose(proxy_spread(proxies), expected, rtol=1e-5)
    np.testing.assert_array_equal(proxy_spread(proxies[:1]), [0.0, 0.0])
