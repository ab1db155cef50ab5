"""Class-balanced batches: the images of the sampler, the pixels of training, continuation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import ccp_dml
from ccp_dml.data import (
    ClassUniformSampler,
    EvaluationImages,
    ImageOptions,
    MPerClassSampler,
    balanced_batches,
    from_arrays,
    from_files,
)
from ccp_dml.data.augmentation import train_preprocessing
from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.images import test_image, test_preprocessing
from ccp_dml.data.pipeline import training_batches

LABELS = np.repeat(np.arange(5), 4)
IMAGES = np.random.default_rng(0).integers(0, 256, [20, 9, 11, 3], np.uint8)
SIZE = ImageOptions(image_size=8)


def taken(batches: tf.data.Dataset, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(images.numpy(), labels.numpy()) for images, labels in batches.take(count)]


def test_arrays_come_as_they_are_in_the_order_of_the_sampler():
    source = from_arrays(IMAGES, LABELS)
    sampler = MPerClassSampler(LABELS, 3, 2, seed=5)
    found = taken(balanced_batches(source, 3, 2, seed=5), 6)
    for step, (images, labels) in enumerate(found):
        np.testing.assert_array_equal(images, IMAGES[sampler.batch(step)])
        np.testing.assert_array_equal(labels, LABELS[sampler.batch(step)])
        assert images.dtype == np.uint8
        assert np.bincount(labels, minlength=5).tolist().count(2) == 3


@pytest.mark.parametrize("images", [None, SIZE], ids=["as they are", "augmented"])
def test_a_stream_from_a_later_step_continues_the_other(images):
    source = from_arrays(IMAGES, LABELS)
    everything = taken(balanced_batches(source, 3, 2, images=images, seed=1), 5)
    rest = taken(balanced_batches(source, 3, 2, images=images, seed=1, first_step=3), 2)
    for expected, found in zip(everything[3:], rest):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


def test_files_have_the_pixels_of_the_training_pipeline(tmp_path: Path):
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    encoded = [tf.io.encode_png(image).numpy() for image in IMAGES]
    for path, data in zip(paths, encoded):
        path.write_bytes(data)
    numbers = np.arange(20)
    prepared = ImageCollection(LABELS, tuple("abcde"), numbers, InMemoryRecords(encoded), numbers)
    options = SIZE.completed()
    sampler = MPerClassSampler(LABELS, 3, 2, seed=2)
    expected = taken(training_batches(prepared, sampler, train_preprocessing(options), seed=2), 3)
    for source in (from_files(paths, LABELS), from_arrays(IMAGES, LABELS)):
        found = taken(balanced_batches(source, 3, 2, images=SIZE, seed=2, image_ids=True), 3)
        for (images, labels), (same_images, same_labels) in zip(found, expected):
            np.testing.assert_array_equal(images, same_images)
            np.testing.assert_array_equal(labels, same_labels)
    samples = EvaluationImages(from_files(paths, LABELS), SIZE)
    assert samples.shape == (20, 8, 8, 3)
    for row in (3, 0):
        plain = test_image(tf.constant(encoded[row]), test_preprocessing(options))
        np.testing.assert_array_equal(samples[row], plain)
        np.testing.assert_array_equal(samples[[3, 0]][[3, 0].index(row)], plain)


def test_ccp_and_metrics_take_the_images_of_files(tmp_path: Path):
    paths = [tmp_path / f"{number}.png" for number in range(20)]
    for path, image in zip(paths, IMAGES):
        path.write_bytes(tf.io.encode_png(image).numpy())
    source = from_files(paths, LABELS)
    samples = EvaluationImages(source, SIZE)
    model = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(2)])
    loss = ccp_dml.losses.CCP(ccp_dml.losses.Contrastive(), 5, 2, proxies_per_class=1)
    model.compile("sgd", loss)
    callbacks = [
        ccp_dml.RetrievalMetrics(samples, LABELS, batch_size=7),
        ccp_dml.CCPCallback(loss, samples, source.labels, batch_size=7),
    ]
    model.fit(balanced_batches(source, 3, 2, images=SIZE), steps_per_epoch=2, verbose=0, callbacks=callbacks)
    embedded = model(samples[np.arange(20)]).numpy()
    for label, proxy in enumerate(loss.proxies.embeddings.numpy()):
        assert np.abs(embedded[label == LABELS] - proxy).max(axis=1).min() < 1e-3 * np.abs(embedded).max()
    assert "val_map_at_r" in model.history.history


def test_other_samplers_and_a_fit():
    source = from_arrays(IMAGES.astype(np.float32), LABELS)
    batches = balanced_batches(source, sampler=ClassUniformSampler(source.labels, 5))
    assert batches.element_spec[0].shape == [5, 9, 11, 3]
    assert all(sorted(labels) == list(range(5)) for _, labels in taken(batches, 3))
    model = tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(5)])
    model.compile("sgd", tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(balanced_batches(source, 2, 2), steps_per_epoch=2, verbose=0)


def test_replicas_divide_every_batch():
    source = from_arrays(IMAGES, LABELS)
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    divided = iter(balanced_batches(source, 3, 2, seed=4, first_step=1, strategy=strategy))
    expected = taken(balanced_batches(source, 3, 2, seed=4, first_step=1), 1)[0]
    images, labels = (strategy.gather(value, 0).numpy() for value in next(divided))
    np.testing.assert_array_equal(images, expected[0])
    np.testing.assert_array_equal(labels, expected[1])


def test_errors_name_what_is_wrong(tmp_path: Path):
    (tmp_path / "a.png").write_bytes(tf.io.encode_png(IMAGES[0]).numpy())
    files = from_files([tmp_path / "a.png"] * 2, ["a", "a"])
    with pytest.raises(ValueError, match="images is None; expected ImageOptions"):
        balanced_batches(files, 1, 2)
    with pytest.raises(ValueError, match="images is None; expected ImageOptions"):
        EvaluationImages(files)
    with pytest.raises(ValueError, match="image_size is None; expected the side"):
        balanced_batches(files, 1, 2, images=ImageOptions())
    with pytest.raises(ValueError, match="1 of 2 classes have fewer than 2 images, such as 'b'"):
        balanced_batches(from_arrays(np.zeros([3, 1]), ["a", "a", "b"]), 2, 2)
    with pytest.raises(ValueError, match="classes_per_batch must be between 1 and .* 5, found 6"):
        balanced_batches(from_arrays(IMAGES, LABELS), 6, 2)
