from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import PadAndCrop, TestPreprocessing, TrainPreprocessing, test_image
from ccp_dml.data.pipeline import inference_batches, training_batches
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


def test_training_batches_hold_what_the_sampler_chose(collection: ImageCollection) -> None:
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


def test_the_stream_can_be_entered_anywhere(collection: ImageCollection) -> None:
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
def test_streams_of_other_samplers_can_be_entered_anywhere(
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


def test_the_first_images_of_a_batch_may_be_spared_the_augmentation(collection: ImageCollection) -> None:
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
    batches = [batch.numpy() for batch in inference_batches(collection, TEST, batch_size=8)]
    assert [len(batch) for batch in batches] == [8, 8, 8, 4]
    expected = [test_image(tf.constant(encoded), TEST) for encoded in collection.encoded(range(28))]
    np.testing.assert_array_equal(np.concatenate(batches), np.stack(expected))


def test_inference_of_chosen_images(collection: ImageCollection) -> None:
    everything = np.concatenate(list(inference_batches(collection, TEST, batch_size=28)))
    chosen = np.concatenate(list(inference_batches(collection, TEST, 3, indices=[20, 3, 3, 7])))
    np.testing.assert_array_equal(chosen, everything[[20, 3, 3, 7]])
    assert list(inference_batches(collection, TEST, 3, indices=[])) == []


def test_inference_refuses_an_empty_batch(collection: ImageCollection) -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, found 0"):
        inference_batches(collection, TEST, batch_size=0)


def test_boxes_are_cut_out(collection: ImageCollection) -> None:
    boxes = np.array([[i % 5, i % 3, 15, 12 - i % 4] for i in range(len(collection))])
    cropped = replace(collection, boxes=boxes)
    chosen = cropped.by_classes([6, 2]).subset([0, 5, 9])
    indices = np.flatnonzero(np.isin(collection.labels, [2, 6]))[[0, 5, 9]]
    np.testing.assert_array_equal(chosen.boxes, boxes[indices])

    encoded = collection.encoded(np.arange(len(collection)))
    expected = [
        test_image(tf.constant(data), TEST, tf.constant(box, tf.int32)) for data, box in zip(encoded, boxes)
    ]
    found = np.concatenate(list(inference_batches(cropped, TEST, 8).as_numpy_iterator()))
    np.testing.assert_array_equal(found, np.stack(expected))
    assert not np.array_equal(found, np.concatenate(list(inference_batches(collection, TEST, 8))))

    sampler = MPerClassSampler(collection.labels, classes_per_batch=3, samples_per_class=2, seed=5)
    for step, (images, _) in enumerate(take(training_batches(cropped, sampler, TEST, seed=5), 2)):
        np.testing.assert_array_equal(images, np.stack(expected)[sampler.batch(step)])
    for images, _ in take(make(cropped), 2):
        assert images.shape == (6, 12, 12, 3)
    with pytest.raises(ValueError, match=r"boxes must have shape \(28, 4\), found \(27, 4\)"):
        replace(collection, boxes=boxes[1:])
