from __future__ import annotations

import numpy as np

from ccp_dml.projections.pool import ProxyPool


def test_each_distinct_image_is_embedded_once():
    table = np.random.default_rng(0).normal(size=[10, 3])
    asked = []

    def embed(images):
        asked.append(list(images))
        return table[images]

    draws = np.array([[1, 7], [2, 8], [1, 9]])
    pool = ProxyPool(lambda first, count: draws[first : first + count], embed)
    embeddings, images = pool(0, 3)
    assert asked == [[1, 2, 7, 8, 9]]
    np.testing.assert_array_equal(images, draws)
    np.testing.assert_array_equal(embeddings, table[draws].astype(np.float32))
    np.testing.assert_array_equal(pool(1, 2)[1], draws[1:])
    np.testing.assert_array_equal(pool.embed_images(np.array([7, 1, 7])), table[[7, 1, 7]].astype(np.float32))
    assert asked[-1] == [1, 7]
