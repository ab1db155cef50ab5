"""Time of choosing new proxies, against a bare inference pass over the images that it needs.

    python -m benchmarks.reset.run            # half a minute of the processor
    python -m benchmarks.reset.run --quick    # a quarter of the classes, once

Rows of the first table, on the training images of configs/emoji.cfg: an inference pass with reading and
decoding, the floor; a reset as in training, that is draws, embeddings, greedy k-center and new proxies; the
compiled model alone, on images decoded before; and resets with `--pool_memory_steps` of one and of five
epochs, after as many steps have recorded their embeddings. A pool of 5 draws takes every image once. The rows
take turns; ratios are medians of the ratios within a turn.

Then greedy k-center alone, on a pool as large as that of Stanford Online Products (11,318 classes of 7
candidates of 128 dimensions), and the number of images that a reset embeds there beside the number that the
original embeds, one for each draw; class sizes are random with the mean of that data set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.common import results
from benchmarks.common.measuring import Seconds, in_turns, ratio, summarize
from benchmarks.reset.report import DIMENSIONS, DRAWS, PROXIES_PER_CLASS
from benchmarks.sampling.run import SIZES, simulated_labels
from ccp_dml.config import command_line
from ccp_dml.data.pipeline import InferenceBatches
from ccp_dml.data.sampling import OnePerClassSampler, make_sampler
from ccp_dml.experiment.build import Run, build
from ccp_dml.geometry import greedy_k_center
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.pool import PoolMemory, ProxyPool
from ccp_dml.projections.projections import AlternatingProjections

REMEMBERED_EPOCHS = (1, 5)
REPEATS = 5


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    repeats = 1 if options.quick else REPEATS
    images, seconds = measure_reset(4 if options.quick else 1, repeats)
    found = {
        "images": images,
        "resets": list(rows(seconds)),
        "k_center": measure_k_center(repeats),
        "counts": count_images(),
    }
    results.publish("reset", found, write=not options.quick)


def measure_reset(stride: int, repeats: int) -> tuple[int, dict[str, list[Seconds]]]:
    """Number of images and seconds of each row, on every `stride`-th class."""
    config = command_line.parse(["--flagfile=configs/emoji.cfg", f"--proxies_per_class={PROXIES_PER_CLASS}"])
    run = build(config)
    train = run.task.train
    images = train.by_classes(range(0, train.num_classes, stride))
    run.task = dataclasses.replace(run.task, train=images)
    embed, everything = run.training_image_embedder(), np.arange(len(images))
    embedded: list[np.ndarray] = []

    def counted_embed(indices: np.ndarray) -> np.ndarray:
        embedded.append(indices)
        return embed(indices)

    decoded = list(InferenceBatches(images, run.preprocessing, run.blocks.batch_size).of())
    tasks: dict[str, Callable[[], object]] = {
        "inference pass": lambda: embed(everything),
        "reset": make_projections(run, counted_embed).begin,
        "model alone, images decoded before": lambda: [run.inference(batch).numpy() for batch in decoded],
    }
    for epochs in REMEMBERED_EPOCHS:
        name, task = reset_from_memory(run, embed, epochs * config.training.steps_per_epoch)
        tasks[name] = task
    seconds = in_turns(tasks, repeats)
    assert all(len(np.unique(indices)) == len(images) == len(indices) for indices in embedded)
    return len(images), seconds


def make_projections(
    run: Run, embed: Callable[[np.ndarray], np.ndarray], memory: PoolMemory | None = None
) -> AlternatingProjections:
    """The projections of a run, with proxies for its training classes."""
    images, options = run.task.train, run.config.projections
    proxies = Proxies(images.num_classes, PROXIES_PER_CLASS, run.config.model.embedding_size)
    draws = OnePerClassSampler(images.labels, window=options.draws(PROXIES_PER_CLASS)).draws
    pool = ProxyPool(draws, embed, memory)
    return AlternatingProjections(run.model.trainable_variables, proxies, pool, options)


def reset_from_memory(
    run: Run, embed: Callable[[np.ndarray], np.ndarray], steps: int
) -> tuple[str, Callable[[], object]]:
    """Name and task of a reset whose memory has recorded so many steps."""
    images, size = run.task.train, run.config.model.embedding_size
    memory = PoolMemory(images.image_ids, size, steps)
    projections = make_projections(run, embed, memory)
    sampler, record = make_sampler(run.config.batches, images.labels, seed=0), tf.function(memory.record)
    for step in range(steps):
        rows = sampler.batch(step)
        labels = np.stack([images.labels[rows], images.image_ids[rows]], 1).astype(np.int32)
        record(tf.constant(labels), tf.random.stateless_normal([len(rows), size], [0, step]))
    written = memory.written.numpy()

    def reset() -> None:
        memory.written.assign(written)
        projections.begin()

    return f"reset, {(written >= 0).mean():.0%} remembered from {steps} steps", reset


def measure_k_center(repeats: int) -> dict[str, float]:
    """Seconds of greedy k-center with as many classes as Stanford Online Products has."""
    generator = np.random.default_rng(0)
    classes = SIZES["sop"].classes
    pool = generator.standard_normal([DRAWS, classes, DIMENSIONS]).astype(np.float32)
    covered = generator.standard_normal([PROXIES_PER_CLASS, classes, DIMENSIONS]).astype(np.float32)

    def choose() -> object:
        indices, centers = greedy_k_center(tf.constant(pool), tf.constant(covered), PROXIES_PER_CLASS)
        return indices.numpy(), centers.numpy()

    found = summarize(in_turns({"": choose}, repeats)[""])
    return {"seconds": found.median, "least": found.least, "processor_seconds": found.processor}


def count_images() -> dict[str, int]:
    """Numbers of images, of draws, and of distinct images drawn, in a pool for Stanford Online Products."""
    size = SIZES["sop"]
    sampler = OnePerClassSampler(simulated_labels(size.classes, size.images), window=DRAWS)
    draws = sampler.draws(0, DRAWS)
    return {"images": size.images, "draws": int(draws.size), "embedded": len(np.unique(draws))}


def rows(seconds: Mapping[str, Sequence[Seconds]]) -> Iterator[dict[str, Any]]:
    """The rows of the results."""
    floor = next(iter(seconds.values()))
    for name, calls in seconds.items():
        found, to_floor = summarize(calls), ratio(calls, floor)
        yield {
            "name": name,
            "seconds": found.median,
            "least": found.least,
            "most": found.most,
            "processor_seconds": found.processor,
            "ratio": to_floor.elapsed,
            "processor_ratio": to_floor.processor,
        }


if __name__ == "__main__":
    main()
