"""Input pipelines: training and inference batches, shards, and the guard at exit."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.augmentation import PadAndCrop, TrainPreprocessing
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing, test_image
from ccp_dml.data.pipeline import InferenceBatches, Shard, guarded, training_batches
from ccp_dml.data.sampling import (
    ClassUniformSampler,
    MPerClassSampler,
    RandomSampler,
    RepresentativeSampler,
    Sampler,
)

TRAIN, TEST = TrainPreprocessing(image_size=12), TestPreprocessing(image_size=12, shorter_side=14)


def take(dataset: tf.data.Dataset, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.numpy(), labels.numpy()) for images, labels in dataset.take(count)]


def make(images: ImageCollection, **options: object) -> tf.data.Dataset:
    sampler = MPerClassSampler(images.labels, classes_per_batch=3, samples_per_class=2, seed=5)
    return training_batches(images, sampler, TRAIN, **{"seed": 5, **options})


def test_training_batches_hold_the_images_of_the_sampler(collection: ImageCollection) -> None:
    sampler = MPerClassSampler(collection.labels, classes_per_batch=3, samples_per_class=2, seed=5)
    dataset = training_batches(collection, sampler, TEST, seed=5)
    assert dataset.element_spec == (
        tf.TensorSpec([6, 12, 12, 3], tf.float32),
        tf.TensorSpec([6, 2], tf.int32),
    )
    for step, (images, labels) in enumerate(take(dataset, 4)):
        indices = sampler.batch(step)
        np.testing.assert_array_equal(labels[:, 0], collection.labels[indices])
        np.testing.assert_array_equal(labels[:, 1], collection.image_ids[indices])
        expected = [test_image(tf.constant(encoded), TEST) for encoded in collection.encoded(indices)]
        np.testing.assert_array_equal(images, np.stack(expected))


def test_the_stream_can_start_at_any_step(collection: ImageCollection) -> None:
    whole = take(make(collection), 9)
    part = take(make(collection, first_step=6), 3)
    for (images, labels), (expected_images, expected_labels) in zip(part, whole[6:]):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


@pytest.mark.parametrize(
    "make_sampler",
    [
        lambda labels: RandomSampler(len(labels), 6, 5),
        lambda labels: ClassUniformSampler(labels, 6, 5),
        lambda labels: RepresentativeSampler(labels, 3, 2, lifetime=4, seed=5),
    ],
    ids=["random", "class_uniform", "representatives"],
)
def test_streams_of_other_samplers_can_start_at_any_step(
    collection: ImageCollection, make_sampler: Callable[[np.ndarray], Sampler]
) -> None:
    def stream(first_step: int) -> tf.data.Dataset:
        sampler = make_sampler(collection.labels)
        return training_batches(collection, sampler, PadAndCrop(12, 15), seed=5, first_step=first_step)

    for (images, labels), (expected_images, expected_labels) in zip(
        take(stream(6), 3), take(stream(0), 9)[6:]
    ):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_the_first_images_of_a_batch_can_be_left_unaugmented(collection: ImageCollection) -> None:
    sampler = RepresentativeSampler(collection.labels, 3, 2, lifetime=4, seed=5)
    with_plain_ones = take(training_batches(collection, sampler, TRAIN, seed=5, unaugmented=(3, TEST)), 4)
    augmented = take(training_batches(collection, sampler, TRAIN, seed=5), 4)
    plain = take(training_batches(collection, sampler, TEST, seed=5), 4)
    for (images, labels), (expected, _), (as_tested, _) in zip(with_plain_ones, augmented, plain):
        np.testing.assert_array_equal(images[:3], as_tested[:3])
        np.testing.assert_array_equal(images[3:], expected[3:])
        assert (np.abs(images[:3] - expected[:3]).max(axis=(1, 2, 3)) > 1).all()
        assert (labels[:3, 0] == labels[3:, 0]).all()


def test_the_stream_does_not_depend_on_threads(collection: ImageCollection) -> None:
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    options.threading.max_intra_op_parallelism = 1
    single = take(make(collection).with_options(options), 5)
    for (images, labels), (expected_images, expected_labels) in zip(take(make(collection), 5), single):
        np.testing.assert_array_equal(images, expected_images)
        np.testing.assert_array_equal(labels, expected_labels)


def test_augmentation_differs_between_steps_places_and_seeds(collection: ImageCollection) -> None:
    one_image = collection.by_classes([0])
    sampler = MPerClassSampler(one_image.labels, classes_per_batch=1, samples_per_class=3)
    views = [
        image.tobytes()
        for seed in (0, 1)
        for images, _ in take(training_batches(one_image, sampler, TRAIN, seed=seed), 2)
        for image in images
    ]
    assert len(set(views)) == 12


def test_inference_is_in_order_with_a_short_last_batch(collection: ImageCollection) -> None:
    batches = [batch.numpy() for batch in InferenceBatches(collection, TEST, batch_size=8).of()]
    assert [len(batch) for batch in batches] == [8, 8, 8, 4]
    expected = [test_image(tf.constant(encoded), TEST) for encoded in collection.encoded(range(28))]
    np.testing.assert_array_equal(np.concatenate(batches), np.stack(expected))


def test_inference_of_chosen_images(collection: ImageCollection) -> None:
    everything = np.concatenate(list(InferenceBatches(collection, TEST, batch_size=28).of()))
    chosen = np.concatenate(list(InferenceBatches(collection, TEST, 3).of([20, 3, 3, 7])))
    np.testing.assert_array_equal(chosen, everything[[20, 3, 3, 7]])
    assert list(InferenceBatches(collection, TEST, 3).of([])) == []


def test_one_pipeline_serves_any_choices_of_images(collection: ImageCollection) -> None:
    everything = np.concatenate(list(InferenceBatches(collection, TEST, batch_size=28).of()))
    batches = InferenceBatches(collection, TEST, batch_size=3)
    next(iter(batches.of()))  # An iteration that is given up.
    for indices in ([4, 4, 9, 2], slice(5, 12), [], [27], None):
        found = [batch.numpy() for batch in batches.of(indices)]
        expected = everything if indices is None else everything[indices]
        assert [len(batch) for batch in found] == [
            min(3, len(expected) - i) for i in range(0, len(expected), 3)
        ]
        np.testing.assert_array_equal(np.concatenate([expected[:0], *found]), expected)


def test_inference_refuses_an_empty_batch(collection: ImageCollection) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        InferenceBatches(collection, TEST, batch_size=0).of()


def test_images_are_cropped_to_their_boxes(collection: ImageCollection) -> None:
    boxes = np.array([[i % 5, i % 3, 15, 12 - i % 4] for i in range(len(collection))])
    cropped = replace(collection, boxes=boxes)
    chosen = cropped.by_classes([6, 2]).subset([0, 5, 9])
    indices = np.flatnonzero(np.isin(collection.labels, [2, 6]))[[0, 5, 9]]
    np.testing.assert_array_equal(chosen.boxes, boxes[indices])

    encoded = collection.encoded(np.arange(len(collection)))
    expected = [
        test_image(tf.constant(data), TEST, tf.constant(box, tf.int32)) for data, box in zip(encoded, boxes)
    ]
    found = np.concatenate(list(InferenceBatches(cropped, TEST, 8).of().as_numpy_iterator()))
    np.testing.assert_array_equal(found, np.stack(expected))
    assert not np.array_equal(found, np.concatenate(list(InferenceBatches(collection, TEST, 8).of())))

    sampler = MPerClassSampler(collection.labels, classes_per_batch=3, samples_per_class=2, seed=5)
    for step, (images, _) in enumerate(take(training_batches(cropped, sampler, TEST, seed=5), 2)):
        np.testing.assert_array_equal(images, np.stack(expected)[sampler.batch(step)])
    for images, _ in take(make(cropped), 2):
        assert images.shape == (6, 12, 12, 3)


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
def test_the_streams_of_workers_make_up_the_full_stream_bit_by_bit(
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


def test_only_the_images_of_the_shard_are_read_and_decoded(
    collection: ImageCollection, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, read = [], []
    apply, encoded = TrainPreprocessing.apply, ImageCollection.encoded

    def watched(config: TrainPreprocessing, data: tf.Tensor, *rest: object) -> tf.Tensor:
        [data] = tf.numpy_function(lambda value: decoded.append(value) or value, [data], [tf.string])
        return apply(config, tf.ensure_shape(data, []), *rest)

    def watched_reading(images: ImageCollection, indices: np.ndarray) -> list[bytes]:
        read.append(len(indices))
        return encoded(images, indices)

    monkeypatch.setattr(TrainPreprocessing, "apply", watched)
    monkeypatch.setattr(ImageCollection, "encoded", watched_reading)
    sampler = RandomSampler(len(collection), BATCH, 5)
    part = training_batches(collection, sampler, TRAIN, seed=5, shard=Shard(1, 3, 2))
    for _ in part.take(2 * STEPS):
        pass
    asked = [Counter(encoded(collection, sampler.batch(step)[4:8])) for step in range(100)]
    assert sum(asked[:STEPS], Counter()) <= Counter(decoded) <= sum(asked, Counter())
    assert len(set(encoded(collection, np.arange(len(collection))))) == len(collection)
    assert set(read) == {BATCH // 3}


def test_batches_that_cannot_be_divided_equally_are_refused(collection: ImageCollection) -> None:
    with pytest.raises(ValueError, match="batch of 12 images cannot be divided into 8 equal parts"):
        stream(collection, Shard(0, 4, 2))


# A failing program whose traceback keeps a pipeline alive that calls Python.
PROGRAM = """
import time
import tensorflow as tf
from ccp_dml.data.pipeline import guarded

def slow(number):
    time.sleep(0.1)
    return number

def main():
    function = guarded(slow)
    numbers = tf.data.Dataset.range(10**9).map(lambda n: tf.numpy_function(function, [n], tf.int64))
    numbers = numbers.prefetch(2)
    iterator = iter(numbers)
    for _ in range(4):
        next(iterator)
    raise RuntimeError("the end")

main()
"""


def test_a_program_ends_while_a_pipeline_reads() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert "the end" in ended.stderr


def test_guarded_functions_return_and_raise() -> None:
    function = guarded(lambda numerator, denominator: numerator / denominator)
    assert function(6, 3) == 2
    with pytest.raises(ZeroDivisionError):
        function(1, 0)


def test_deleting_a_guarded_function_does_not_wait(monkeypatch) -> None:
    waits = []
    monkeypatch.setattr("ccp_dml.data.pipeline.time.sleep", waits.append)
    guarded(lambda: None)()
    gc.collect()
    assert waits == []
