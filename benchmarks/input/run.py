"""Images per second of the input pipeline, beside bare decoding and the original's way.

    python -m benchmarks.input.run                # 2,000 JPEGs: three minutes of the processor
    python -m benchmarks.input.run --quick        # 200 JPEGs, once

The JPEGs have 500 × 375 pixels at quality 95, about as those of CUB-200-2011, and are crops of the
photographs that scikit-image and scikit-learn bring. Training crops have 227 px; test images are resized to a
shorter side of 256 px and cropped to 227.

Rows: (a) `decode_jpeg` of the whole files with the accurate transform, and nothing else; nearly only the
entropy code of the files (decoded at an eighth of the size); the floor of training, a window decoded and
resized, the windows chosen before; the floor of test images, all decoded and resized; (b) the original's way:
read, decode the whole image, convert to float, crop (training) and resize; our `training_batches` and
`InferenceBatches`, which also choose, read and batch; ours on copies of the JPEGs with a shorter side of
256 px. (a) and (b) are mapped in parallel and batched like ours. All rows take turns, and ratios are medians
of the ratios within a turn, of elapsed and of processor time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import skimage.data
import sklearn.datasets
import tensorflow as tf

from benchmarks.common import results
from benchmarks.common.measuring import Seconds, in_turns, ratio, summarize
from ccp_dml.data.augmentation import TrainPreprocessing
from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.images import TestPreprocessing, image_size, resize_shorter_side
from ccp_dml.data.pipeline import InferenceBatches, training_batches, without_tuning
from ccp_dml.data.random_streams import uniform_draws
from ccp_dml.data.resizing import resize
from ccp_dml.data.sampling import MPerClassSampler
from ccp_dml.datasets.common.smaller_copy import smaller_image

WIDTH, HEIGHT, QUALITY, SIDE, SHORTER_SIDE = 500, 375, 95, 227, 256
CLASSES_PER_BATCH, SAMPLES_PER_CLASS, IMAGES_PER_CLASS = 8, 4, 20
BATCH_SIZE = CLASSES_PER_BATCH * SAMPLES_PER_CLASS
DECODE = "(a) bare decoding"
ENTROPY = "entropy code alone"
TRAIN_FLOOR, TEST_FLOOR = "floor of training: window decoded, resized", "floor of test: decoded, resized"
TRAIN_ORIGINAL, TEST_ORIGINAL = "(b) training, the original's way", "(b) test, the original's way"
IMAGES, REPEATS = 2_000, 3


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    files = photographs(200 if options.quick else IMAGES)
    small = [smaller_image(file, SHORTER_SIDE) for file in files]
    seconds = in_turns(tasks(files, small), 1 if options.quick else REPEATS)
    found = {
        "bytes": int(np.mean([len(file) for file in files])),
        "images": len(files),
        "bytes_of_copies": int(np.mean([len(file) for file in small])),
        "rows": list(rows(seconds, len(files))),
    }
    results.publish("input", found, write=not options.quick)


def photographs(count: int) -> list[bytes]:
    """JPEGs of random crops of real photographs; crops that are too small are enlarged by at most a third."""
    sources = [
        skimage.data.chelsea(),
        skimage.data.astronaut(),
        skimage.data.coffee(),
        skimage.data.rocket(),
        *sklearn.datasets.load_sample_images().images,
    ]
    generator = np.random.default_rng(0)
    files = []
    for number in range(count):
        source = sources[number % len(sources)]
        most = min(source.shape[0] / HEIGHT, source.shape[1] / WIDTH)
        scale = most * generator.uniform(0.75, 1.0)
        height, width = int(HEIGHT * scale), int(WIDTH * scale)
        top = generator.integers(source.shape[0] - height + 1)
        left = generator.integers(source.shape[1] - width + 1)
        crop = tf.image.resize(source[top : top + height, left : left + width], [HEIGHT, WIDTH], "bicubic")
        files.append(encode(crop))
    return files


def encode(pixels: tf.Tensor) -> bytes:
    """A JPEG of float pixels."""
    rounded = tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
    return bytes(tf.io.encode_jpeg(rounded, quality=QUALITY).numpy())


def tasks(files: Sequence[bytes], small: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    """The rows, on files and on their small copies."""
    # As in the paper's configurations, to which the aims belong.
    training = TrainPreprocessing(SIDE, antialias=False)
    test = TestPreprocessing(SIDE, SHORTER_SIDE, antialias=False)
    found = {
        DECODE: mapped(files, decode),
        ENTROPY: mapped(files, decode_entropy),
        TRAIN_FLOOR: mapped(files, window_floor, random_windows(files, training)),
        TEST_FLOOR: mapped(files, test_floor),
        TRAIN_ORIGINAL: mapped(files, original_training),
        TEST_ORIGINAL: mapped(files, original_test),
    }
    for images, suffix in ((collection(files), ""), (collection(small), ", 256 px copies")):
        sampler = MPerClassSampler(images.labels, CLASSES_PER_BATCH, SAMPLES_PER_CLASS)
        batches = training_batches(images, sampler, training, seed=0).take(len(files) // BATCH_SIZE)
        found[f"training{suffix}"] = consumed(batches)
        found[f"test{suffix}"] = consumed(InferenceBatches(images, test, BATCH_SIZE).of())
    return found


def collection(files: Sequence[bytes]) -> ImageCollection:
    """The files with labels, 20 of each class."""
    numbers = np.arange(len(files))
    names = tuple(map(str, range(-(-len(files) // IMAGES_PER_CLASS))))
    return ImageCollection(numbers // IMAGES_PER_CLASS, names, numbers, InMemoryRecords(files), numbers)


def random_windows(files: Sequence[bytes], config: TrainPreprocessing) -> np.ndarray:
    """A training window of each file, int32 [N, 4]."""
    boxes = np.array([[0, 0, *image_size(file)] for file in files], np.int32)
    draws = uniform_draws(np.arange(len(files))[:, np.newaxis], np.arange(config.num_draws))
    windows, _ = config.choose(tf.constant(boxes), tf.constant(draws))
    return np.asarray(windows)


def mapped(
    files: Sequence[bytes], function: Callable[..., tf.Tensor], *others: np.ndarray
) -> Callable[[], None]:
    """Applies a function to every file, in parallel, and batches the results."""
    slices = (list(files), *others) if others else list(files)
    # As in our pipelines: a measurement is over before tuning has found the number of threads.
    images = tf.data.Dataset.from_tensor_slices(slices).map(function, os.cpu_count())
    return consumed(without_tuning(images.batch(BATCH_SIZE).prefetch(2)))


def consumed(batches: tf.data.Dataset) -> Callable[[], None]:
    """A task that reads all batches."""

    def run() -> None:
        for _ in batches:
            pass

    return run


def decode(encoded: tf.Tensor) -> tf.Tensor:
    # One pixel is returned: the image is decoded but not copied into a batch.
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")[0, 0]


def decode_entropy(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, ratio=8)[0, 0]


def window_floor(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    crop = tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")
    return resize(crop, SIDE, SIDE)


def test_floor(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return resize_shorter_side(image, SHORTER_SIDE)


def original_training(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.cast(tf.io.decode_jpeg(encoded, channels=3), tf.float32)
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        tf.shape(image), tf.constant([[[0.0, 0.0, 1.0, 1.0]]]), area_range=(0.16, 1.0), min_object_covered=0.0
    )
    image = tf.image.resize(tf.slice(image, begin, size), [SIDE, SIDE])
    return tf.image.random_flip_left_right(image)


def original_test(encoded: tf.Tensor) -> tf.Tensor:
    image = tf.cast(tf.io.decode_jpeg(encoded, channels=3), tf.float32)
    shape = tf.cast(tf.shape(image)[:2], tf.float32)
    size = tf.cast(shape * SHORTER_SIDE / tf.reduce_min(shape), tf.int32)
    return tf.image.resize_with_crop_or_pad(tf.image.resize(image, size), SIDE, SIDE)


def rows(seconds: Mapping[str, Sequence[Seconds]], images: int) -> Iterator[dict[str, Any]]:
    """The rows of the results, of calls that read `images` images, or whole training batches of them."""
    for name, calls in seconds.items():
        to_decoding = ratio(seconds[DECODE], calls)
        to_original = ratio(seconds[TRAIN_ORIGINAL if "training" in name else TEST_ORIGINAL], calls)
        number = images // BATCH_SIZE * BATCH_SIZE if name.startswith("training") else images
        scale = number / images
        compared = name not in (DECODE, ENTROPY)
        yield {
            "name": name,
            "per_second": number / summarize(calls).median,
            "per_processor_second": number / summarize(calls).processor,
            "to_decoding": to_decoding.elapsed * scale,
            "to_decoding_processor": to_decoding.processor * scale,
            "to_original": to_original.elapsed * scale if compared else None,
            "to_original_processor": to_original.processor * scale if compared else None,
        }


if __name__ == "__main__":
    main()
