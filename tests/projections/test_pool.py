"""The pool of embedded images, with and without a memory of training embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.projections.pool import PoolMemory, ProxyPool
from tests.training import tiny

IDS, SIZE = np.array([40, 7, 19, 3, 88]), 2


class Fresh:
    """Embeds image i as [i, number of the call], and records the images of each call."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.asked.append(images.tolist())
        return np.stack([images, np.full(len(images), len(self.asked))], 1).astype(np.float32)


def step(memory: PoolMemory, images: list[int], value: float) -> None:
    labels = np.stack([np.zeros(len(images)), IDS[images]], 1).astype(np.int32)
    embeddings = value + np.arange(len(images))[:, np.newaxis] * np.ones([1, SIZE])
    tf.function(memory.record)(tf.constant(labels), tf.constant(embeddings, tf.float32))


@pytest.mark.parametrize("max_age", [1, 3, 100])
def test_the_memory_returns_the_last_embedding_of_each_image_that_is_not_too_old(max_age):
    memory = PoolMemory(IDS, SIZE, max_age)
    generator = np.random.default_rng(0)
    kept: dict[int, tuple[int, float]] = {}
    for number in range(1, 12):
        images = generator.integers(0, 4, 3).tolist()
        step(memory, images, 10.0 * number)
        for place, image in enumerate(images):
            kept[image] = (number, 10.0 * number + place)
        known, embeddings = memory.recall(np.arange(5))
        young = {image: value for image, (made, value) in kept.items() if number - made <= max_age}
        assert np.flatnonzero(known).tolist() == sorted(young)
        np.testing.assert_array_equal(embeddings[:, 0], [young[image] for image in sorted(young)])


def test_an_empty_memory_and_numbers_that_are_not_finite_return_nothing():
    memory = PoolMemory(IDS, SIZE, 5)
    assert not memory.recall(np.arange(5))[0].any()
    step(memory, [0, 1], np.nan)
    step(memory, [2], 1.0)
    memory.remember(np.array([3, 4]), np.array([[1, np.inf], [1, 2]], np.float32))
    assert memory.recall(np.arange(5))[0].tolist() == [False, False, True, False, True]


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


def test_a_pool_embeds_the_images_that_its_memory_lacks_and_adds_them():
    memory, fresh = PoolMemory(IDS, SIZE, 2), Fresh()
    pool = ProxyPool(lambda first, count: np.array([[0, 4], [1, 0]]), fresh, memory)
    step(memory, [1, 3], 50.0)
    embeddings, images = pool(0, 2)
    assert fresh.asked == [[0, 4]]
    np.testing.assert_array_equal(embeddings, [[[0, 1], [4, 1]], [[50, 50], [0, 1]]])
    assert images.tolist() == [[0, 4], [1, 0]]
    step(memory, [2], 0.0)
    step(memory, [0], 60.0)
    embeddings, _ = pool(0, 2)
    assert fresh.asked == [[0, 4]], "two steps later, none is too old"
    np.testing.assert_array_equal(embeddings, [[[60, 60], [4, 1]], [[50, 50], [60, 60]]])
    step(memory, [2], 0.0)
    pool(0, 2)
    assert fresh.asked == [[0, 4], [1, 4]]
    pool.embed_images(np.array([0, 1]))
    assert fresh.asked[-1] == [0, 1], "embed_images does not use the memory"


def test_training_steps_fill_the_memory():
    run = tiny.trainer(memory_steps=3, steps_per_epoch=6, chunk_size=3)
    run.fit(1)
    memory = run.state["alternating_projections"].memory
    assert int(memory.steps) == 6
    last: dict[int, int] = {}
    for number, (_, labels) in enumerate(tiny.batches_with_ids(0).take(6), 1):
        last.update((119 - int(image), number) for image in labels[:, 1])
    # All others were embedded by the first pool, before the first step.
    assert {image: int(memory.written[image]) for image in last} == last
    assert run.trace_count == 1


def test_a_memory_without_embeddings_does_not_change_the_pool():
    remembering, plain = tiny.trainer(memory_steps=1), tiny.trainer()
    for run in (remembering, plain):
        run.state["alternating_projections"].begin()
    for with_memory, without in zip(tiny.values(remembering), tiny.values(plain)):
        np.testing.assert_array_equal(with_memory, without)


def test_image_ids_have_to_be_distinct():
    with pytest.raises(ValueError, match="not distinct"):
        PoolMemory(np.array([1, 1]), SIZE, 1)
