"""Time of the retrieval evaluation against the product it cannot avoid and the original's algorithm.

    python -m benchmarks.retrieval            # 20,000 images: under a minute on 2 cores
    python -m benchmarks.retrieval --full     # 62,000 images, as many as Stanford Online Products: 3 minutes

Rows of the table: the bare float32 product of the same blocks; `evaluate_retrieval` (P@1, P@R, MAP@R and R@k
for k up to 8, then up to 1000); a stand-in for the original's evaluation (blocks of 128 queries, top-k over
whole rows, the query dropped as the first of its ranking). All are measured in turn, several times; ratios
are those of the medians, of elapsed time and of processor time (which a busy machine disturbs less), and the
values of both evaluations are printed. The data are random unit vectors, about 5.5 a class, that lie nearer
to their class than to others.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from ccp_dml.evaluation.blocks import plan_search
from ccp_dml.evaluation.metrics import RetrievalResult, evaluate_retrieval

ORIGINAL_BLOCK = 128


def main() -> None:
    options = parse_options()
    embeddings, labels = make_problem(options.images, options.dimension, options.per_class)
    largest_r = int(np.bincount(labels).max()) - 1
    block = plan_search(options.images, options.images, options.dimension, largest_r).queries
    values: dict[str, RetrievalResult] = {}

    def ours(name: str, recall_at: tuple[int, ...]) -> Callable[[], None]:
        def run() -> None:
            values[name] = evaluate_retrieval(embeddings, labels, recall_at=recall_at)

        return run

    tasks: dict[str, Callable[[], object]] = {
        f"float32 product, blocks of {block}": lambda: product(embeddings, block),
        "evaluate_retrieval, R@1..8": ours("short", (1, 2, 4, 8)),
        "evaluate_retrieval, R@1..1000": ours("long", (1, 2, 4, 8, 10, 100, 1000)),
    }
    reference = {}
    if not options.skip_original:
        tasks["original's algorithm (stand-in)"] = lambda: reference.update(original(embeddings, labels))
    print(
        f"{options.images} images, {options.dimension} dimensions, largest R {largest_r}, "
        f"{os.cpu_count()} cores, {options.repeats} repeats"
    )
    print_table(measure(tasks, options.repeats))
    means = values["short"].means()
    print("P@1 {precision_at_1:.6f}  P@R {r_precision:.6f}  MAP@R {map_at_r:.6f}".format(**means))
    if reference:
        print("original's: " + "  ".join(f"{name} {value:.6f}" for name, value in reference.items()))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--full", action="store_true", help="62,000 images instead of 20,000")
    parser.add_argument("--images", type=int, help="number of images (overrides --full)")
    parser.add_argument("--dimension", type=int, default=128, help="embedding size (128)")
    parser.add_argument("--per_class", type=float, default=5.5, help="mean number of images of a class (5.5)")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each row (3)")
    parser.add_argument("--skip_original", action="store_true", help="leave out the slowest row")
    options = parser.parse_args()
    options.images = options.images or (62_000 if options.full else 20_000)
    return options


def make_problem(images: int, dimension: int, per_class: float) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors around random class centres, with class sizes from 2 to about twice the mean."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(2, max(3, round(2 * per_class - 1)), size=images)
    labels = np.repeat(np.arange(images), sizes)[:images]
    labels = labels[generator.permutation(images)]
    embeddings = generator.standard_normal((labels.max() + 1, dimension))[labels]
    embeddings += 1.8 * generator.standard_normal(embeddings.shape)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return embeddings.astype(np.float32), labels


def product(embeddings: np.ndarray, block: int) -> None:
    """All scores, block by block, each thrown away: what any exact evaluation has to compute."""
    gallery = tf.constant(embeddings)
    for start in range(0, len(embeddings), block):
        bare_product(gallery[start : start + block], gallery)


@tf.function(input_signature=[tf.TensorSpec([None, None])] * 2, autograph=False)
def bare_product(queries: tf.Tensor, gallery: tf.Tensor) -> tf.Tensor:
    # One element leaves the graph, so that the result is computed but not copied.
    return tf.matmul(queries, gallery, transpose_b=True)[0, 0]


def original(embeddings: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The way of the original code, without its block errors: top-k over whole rows, first hit dropped."""
    gallery, classes = tf.constant(embeddings), tf.constant(labels, tf.int32)
    counts = np.bincount(labels)[labels] - 1
    largest_r = tf.constant(int(counts.max()))
    sums = np.zeros(3)
    for start in range(0, len(embeddings), ORIGINAL_BLOCK):
        part = slice(start, start + ORIGINAL_BLOCK)
        found = original_block(
            gallery[part], classes[part], gallery, classes, tf.constant(counts[part]), largest_r
        )
        sums += found.numpy()
    return dict(zip(("P@1", "P@R", "MAP@R"), sums / np.sum(counts > 0)))


@tf.function(autograph=False)
def original_block(
    queries: tf.Tensor,
    query_classes: tf.Tensor,
    gallery: tf.Tensor,
    classes: tf.Tensor,
    counts: tf.Tensor,
    largest_r: tf.Tensor,
) -> tf.Tensor:
    squared = (
        tf.reduce_sum(tf.square(queries), axis=1)[:, tf.newaxis]
        + tf.reduce_sum(tf.square(gallery), axis=1)
        - 2.0 * tf.matmul(queries, gallery, transpose_b=True)
    )
    distances = tf.sqrt(tf.nn.relu(squared))
    nearest = tf.math.top_k(-distances, largest_r + 1)[1][:, 1:]
    relevant = tf.cast(tf.gather(classes, nearest) == query_classes[:, tf.newaxis], tf.float32)
    places = tf.range(1, largest_r + 1)
    inside = tf.cast(places <= tf.cast(counts, tf.int32)[:, tf.newaxis], tf.float32)
    precision = tf.cumsum(relevant, axis=1) / tf.cast(places, tf.float32)
    positives = tf.maximum(tf.cast(counts, tf.float32), 1.0)
    r_precision = tf.reduce_sum(relevant * inside, axis=1) / positives
    map_at_r = tf.reduce_sum(relevant * inside * precision, axis=1) / positives
    return tf.reduce_sum(tf.stack([relevant[:, 0] * inside[:, 0], r_precision, map_at_r]), axis=1)


def measure(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[tuple[float, float]]]:
    """(Elapsed, processor) seconds of each task, run in turn: a busy moment must not hit one task alone."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    warm_up, labels = make_problem(2_000, 16, 5.5)
    evaluate_retrieval(warm_up, labels, recall_at=(1, 1000))
    for _ in range(repeats):
        for name, task in tasks.items():
            start, processor_start = time.perf_counter(), time.process_time()
            task()
            seconds[name].append((time.perf_counter() - start, time.process_time() - processor_start))
    return seconds


def print_table(seconds: dict[str, list[tuple[float, float]]]) -> None:
    width = max(map(len, seconds))
    medians = {name: [statistics.median(column) for column in zip(*rows)] for name, rows in seconds.items()}
    floor = next(iter(medians.values()))
    print(f"{'':{width}}  median s   min s   max s  ratio  processor s  ratio")
    for name, rows in seconds.items():
        elapsed = [row[0] for row in rows]
        ratios = [median / base for median, base in zip(medians[name], floor)]
        print(
            f"{name:{width}}  {medians[name][0]:8.2f}  {min(elapsed):6.2f}  {max(elapsed):6.2f}  "
            f"{ratios[0]:5.2f}  {medians[name][1]:11.2f}  {ratios[1]:5.2f}"
        )


if __name__ == "__main__":
    main()
