"""Images per second of the input pipeline, beside bare decoding and the original's way.

    python -m benchmarks.input                     # 2,000 JPEGs: three minutes of the processor
    python -m benchmarks.input --images 200 --no-write

The JPEGs have 500 × 375 pixels at quality 95, as those of CUB-200-2011 about do, and are re-cropped from the
photographs that scikit-image and scikit-learn bring. Training crops have 227 px; test images are resized to
a shorter side of 256 px and cropped to 227.

Rows: (a) `decode_jpeg` of the same files, whole and with the accurate transform, and nothing more; the
decoding of their entropy code alone, nearly (at an eighth of the size); the floor of training, a window
decoded and resized, with windows chosen before, and of test images, all decoded and resized; (b) the way of
the original, read, decode whole, convert to float, then crop (training) and resize; our
`training_batches` and `inference_batches`, which also choose, read and batch; and ours on copies of the same
JPEGs whose shorter side has 256 px. (a) and (b) are mapped in parallel and batched like ours. Everything is
measured in turn, and ratios are the medians of the ratios within a turn, of elapsed and of processor time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import skimage.data
import sklearn.datasets
import tensorflow as tf

from benchmarks.measuring import Headline, Seconds, in_turns, ratio, times, write
from ccp_dml.data.augmentation import TrainPreprocessing
from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.images import TestPreprocessing, image_size, resize, resize_shorter_side
from ccp_dml.data.pipeline import inference_batches, training_batches, without_tuning
from ccp_dml.data.random_streams import uniform_draws
from ccp_dml.data.sampling import MPerClassSampler
from datasets.common.smaller_copy import smaller_image

WIDTH, HEIGHT, QUALITY, SIDE, SHORTER_SIDE = 500, 375, 95, 227, 256
CLASSES_PER_BATCH, SAMPLES_PER_CLASS, IMAGES_PER_CLASS = 8, 4, 20
BATCH_SIZE = CLASSES_PER_BATCH * SAMPLES_PER_CLASS
DECODE = "(a) bare decoding"
ENTROPY = "entropy code alone"
TRAIN_FLOOR, TEST_FLOOR = "floor of training: window decoded, resized", "floor of test: decoded, resized"
TRAIN_ORIGINAL, TEST_ORIGINAL = "(b) training, the original's way", "(b) test, the original's way"


def main() -> None:
    options = parse_options()
    files = photographs(options.images)
    small = [shrunk(file) for file in files]
    seconds = in_turns(tasks(files, small), options.repeats)
    found = list(rows(seconds, len(files)))
    sizes = {"bytes": int(np.mean([len(file) for file in files])), "images": len(files)}
    sizes["bytes_of_copies"] = int(np.mean([len(file) for file in small]))
    print(f"{sizes['images']} JPEGs of {sizes['bytes']:,} bytes, copies of {sizes['bytes_of_copies']:,}")
    for line in table(found):
        print(line)
    if options.write:
        write("input", {**sizes, "rows": found}, table(found), headlines(found))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--images", type=int, default=2000, help="number of JPEGs, a multiple of 20 (2000)")
    add("--repeats", type=int, default=3, help="measurements of each row (3)")
    add("--write", action=argparse.BooleanOptionalAction, default=True, help="write input.json and the docs")
    return parser.parse_args()


def photographs(count: int) -> list[bytes]:
    """JPEGs of random parts of real photographs, enlarged by at most a third where these are too small."""
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
        part = tf.image.resize(source[top : top + height, left : left + width], [HEIGHT, WIDTH], "bicubic")
        files.append(encode(part))
    return files


def encode(pixels: tf.Tensor) -> bytes:
    rounded = tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8)
    return bytes(tf.io.encode_jpeg(rounded, quality=QUALITY).numpy())


def shrunk(file: bytes) -> bytes:
    """A copy with the shorter side of 256 px, as `--prepared_shorter_side` makes it."""
    return smaller_image(file, SHORTER_SIDE)


def tasks(files: Sequence[bytes], small: Sequence[bytes]) -> dict[str, Callable[[], object]]:
    training, test = TrainPreprocessing(SIDE), TestPreprocessing(SIDE, SHORTER_SIDE)
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
        found[f"test{suffix}"] = consumed(inference_batches(images, test, BATCH_SIZE))
    return found


def collection(files: Sequence[bytes]) -> ImageCollection:
    numbers = np.arange(len(files))
    names = tuple(map(str, range(-(-len(files) // IMAGES_PER_CLASS))))
    return ImageCollection(numbers // IMAGES_PER_CLASS, names, numbers, InMemoryRecords(files), numbers)


def random_windows(files: Sequence[bytes], config: TrainPreprocessing) -> np.ndarray:
    boxes = np.array([[0, 0, *image_size(file)] for file in files], np.int32)
    draws = uniform_draws(np.arange(len(files))[:, np.newaxis], np.arange(config.num_draws))
    windows, _ = config.choose(tf.constant(boxes), tf.constant(draws))
    return np.asarray(windows)


def mapped(
    files: Sequence[bytes], function: Callable[..., tf.Tensor], *others: np.ndarray
) -> Callable[[], None]:
    """Applies a function to every file in parallel, in batches where the results are alike in shape."""
    slices = (list(files), *others) if others else list(files)
    # As in our pipelines: tuning takes longer to find the number of threads than a measurement does.
    images = tf.data.Dataset.from_tensor_slices(slices).map(function, os.cpu_count())
    return consumed(without_tuning(images.batch(BATCH_SIZE).prefetch(2)))


def consumed(batches: tf.data.Dataset) -> Callable[[], None]:
    def run() -> None:
        for _ in batches:
            pass

    return run


def decode(encoded: tf.Tensor) -> tf.Tensor:
    # One pixel leaves, so that the image is decoded but not batched.
    return tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")[0, 0]


def decode_entropy(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(encoded, channels=3, ratio=8)[0, 0]


def window_floor(encoded: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    part = tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method="INTEGER_ACCURATE")
    return resize(part, SIDE, SIDE)


def test_floor(encoded: tf.Tensor) -> tf.Tensor:
    whole = tf.io.decode_jpeg(encoded, channels=3, dct_method="INTEGER_ACCURATE")
    return resize_shorter_side(whole, SHORTER_SIDE)


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


def rows(seconds: Seconds, images: int) -> Iterator[dict[str, Any]]:
    for name, found in seconds.items():
        of_decode = ratio(seconds[DECODE], found)
        other = TRAIN_ORIGINAL if "training" in name else TEST_ORIGINAL
        of_original = ratio(seconds[other], found)
        number = images // BATCH_SIZE * BATCH_SIZE if name.startswith("training") else images
        share = number / images
        yield {
            "name": name,
            "per_second": number / times(found).median,
            "per_processor_second": number / times(found).processor,
            "to_decoding": of_decode.elapsed * share,
            "to_decoding_processor": of_decode.processor * share,
            "to_original": None if name in (DECODE, ENTROPY) else of_original.elapsed * share,
            "to_original_processor": None if name in (DECODE, ENTROPY) else of_original.processor * share,
        }


def table(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| | images/s | to (a) | to (b) | images/s of the processor | to (a) | to (b) |"
    yield "|---|---|---|---|---|---|---|"
    for row in found:
        numbers = [row["to_decoding"], row["to_original"]]
        of_processor = [row["to_decoding_processor"], row["to_original_processor"]]
        cells = [f"{row['per_second']:.0f}", *map(_times, numbers)]
        cells += [f"{row['per_processor_second']:.0f}", *map(_times, of_processor)]
        yield f"| {row['name']} | " + " | ".join(cells) + " |"


def headlines(found: Sequence[dict[str, Any]]) -> Iterator[Headline]:
    rows = {row["name"]: row for row in found}
    for name, least in (("training", 2.5), ("test", 1.5)):
        yield Headline(
            f"{name} images, to the original's way", rows[name]["to_original"], "×", at_least=least
        )
    yield Headline("training images, to bare decoding", rows["training"]["to_decoding"], "×", at_least=1.0)


def _times(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}×"


if __name__ == "__main__":
    main()
