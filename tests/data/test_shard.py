from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data import pipeline
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing, TrainPreprocessing
from ccp_dml.data.pipeline import Shard, training_batches
from ccp_dml.data.sampling import RandomSampler, RepresentativeSampler

TRAIN, TEST = TrainPreprocessing(image_size=12), TestPreprocessing(image_size=12, shorter_side=14)
BATCH, STEPS = 12, 5


def stream(images: ImageCollection, shard: Shard, first_step: int = 0) -> tf.data.Dataset:
    sampler = RepresentativeSampler(images.labels, 4, 3, lifetime=2, seed=5)
    return training_batches(
        images, sampler, TRAIN, seed=5, first_step=first_step, unaugmented=(4, TEST), shard=shard
    )


def arrays(dataset: tf.data.Dataset, count: int) -> tuple[np.ndarray, np.ndarray]:
    images, labels = zip(*dataset.take(count).as_numpy_iterator())
    return np.concatenate(images), np.concatenate(labels)


@pytest.mark.parametrize("workers, replicas", [(1, 2), (2, 1), (2, 3), (4, 1), (3, 2)])
def test_the_workers_streams_are_the_whole_one_bit_by_bit(
    collection: ImageCollection, workers: int, replicas: int
) -> None:
    images, labels = arrays(stream(collection, Shard(), first_step=3), STEPS)
    found_images, found_labels = np.empty_like(images), np.empty_like(labels)
    size = BATCH // (workers * replicas)
    for worker in range(workers):
        elements = stream(collection, Shard(worker, workers, replicas), first_step=3)
        assert elements.element_spec[0].shape == (size, 12, 12, 3)
        for number, (some, their_labels) in enumerate(elements.take(STEPS * replicas).as_numpy_iterator()):
            step, replica = divmod(number, replicas)
            place = step * BATCH + (worker * replicas + replica) * size
            found_images[place : place + size] = some
            found_labels[place : place + size] = their_labels
    np.testing.assert_array_equal(found_images, images)
    np.testing.assert_array_equal(found_labels, labels)


def test_no_image_is_read_or_decoded_that_is_not_used(
    collection: ImageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, read = [], []
    original, encoded = pipeline.train_image, ImageCollection.encoded

    def watched(data: tf.Tensor, *rest: object) -> tf.Tensor:
        [data] = tf.numpy_function(lambda value: decoded.append(value) or value, [data], [tf.string])
        return original(tf.ensure_shape(data, []), *rest)

    def watched_reading(images: ImageCollection, indices: np.ndarray) -> list[bytes]:
        read.append(len(indices))
        return encoded(images, indices)

    monkeypatch.setattr(pipeline, "train_image", watched)
    monkeypatch.setattr(ImageCollection, "encoded", watched_reading)
    sampler = RandomSampler(len(collection), BATCH, 5)
    part = training_batches(collection, sampler, TRAIN, seed=5, shard=Shard(1, 3, 2))
    for _ in part.take(2 * STEPS):
        pass
    asked = [Counter(encoded(collection, sampler.batch(step)[4:8])) for step in range(100)]
    assert sum(asked[:STEPS], Counter()) <= Counter(decoded) <= sum(asked, Counter())
    assert len(set(encoded(collection, np.arange(len(collection))))) == len(collection)
    assert set(read) == {BATCH // 3}


def test_parts_have_to_be_equal(collection: ImageCollection) -> None:
    with pytest.raises(ValueError, match="batch of 12 images cannot be divided into 8 equal parts"):
        stream(collection, Shard(0, 4, 2))
