"""Time of choosing new proxies against a bare inference pass over the distinct images that it needs.

    python -m benchmarks.reset                    # half a minute of the processor
    python -m benchmarks.reset --shrink 4         # a quarter of the classes

Rows of the first table: an inference pass with reading and decoding, which is the floor; a reset as it
happens in training, that is draws, embeddings, greedy k-center, new proxies; resets with
`--pool_memory_steps` of one and of five epochs, after as many steps have noted their embeddings; and the
compiled model alone, on images that were decoded before. All run on the training images of configs/emoji.cfg
(where the pool of 5 draws takes every image once), in turn; ratios are the medians of the ratios within a
turn.

Then the greedy k-center alone on a pool as large as that of Stanford Online Products, 11,318 classes of 7
candidates of 128 dimensions; and the number of images that a reset embeds there beside those that the
original embeds (one per draw), the class sizes being random with the mean of that data set.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.measuring import Headline, Seconds, in_turns, ratio, times, write
from benchmarks.sampling import SIZES, simulated_labels
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.pipeline import inference_batches
from ccp_dml.data.sampling import OnePerClassSampler
from ccp_dml.evaluation.embedding import SmallerBlocks
from ccp_dml.experiment import parts
from ccp_dml.experiment.batches import make_sampler
from ccp_dml.experiment.task import load_task
from ccp_dml.geometry import greedy_k_center
from ccp_dml.projections.pool import ProxyPool

PROXIES_PER_CLASS, DRAWS, DIMENSIONS = 4, 7, 128
REMEMBERED_EPOCHS = (1, 5)
MOST_SECONDS = 0.5


def main() -> None:
    options = parse_options()
    images, seconds = measure_reset(options)
    resets = list(rows(seconds))
    print(f"A reset on {images:,} images")
    for row in resets:
        print(
            "{name:42}{seconds:8.2f} s {ratio:7.3f}{processor_seconds:8.2f} s {processor_ratio:7.3f}".format(
                **row
            )
        )
    k_center = measure_k_center(options.repeats)
    print(
        "k-center of 11,318 classes: {seconds:.3f} s, processor {processor_seconds:.3f} s".format(**k_center)
    )
    counts = count_images()
    print("Images of a reset: {embedded:,} of {images:,}, the original {draws:,}".format(**counts))
    if options.write:
        results = {"images": images, "resets": resets, "k_center": k_center, "counts": counts}
        write("reset", results, table(results), headlines(results))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--shrink", type=int, default=1, help="take one class in so many (1)")
    add("--repeats", type=int, default=5, help="measurements of each row (5)")
    add("--write", action=argparse.BooleanOptionalAction, default=True, help="write reset.json and the docs")
    return parser.parse_args()


def measure_reset(options: argparse.Namespace) -> tuple[int, Seconds]:
    config = command_line.parse(["--flagfile=configs/emoji.cfg", f"--proxies_per_class={PROXIES_PER_CLASS}"])
    whole = load_task(config.data).train
    images = whole.by_classes(range(0, whole.num_classes, options.shrink))
    model, loss = parts.make_model(config), parts.make_loss(config, images.num_classes)
    inference = parts.make_inference(config, model)
    embedded: list[np.ndarray] = []
    blocks = SmallerBlocks(config.evaluation.evaluation_batch_size)
    projections = parts.make_projections(config, model, inference, loss, images, blocks)
    assert projections is not None
    counted(projections._draw_pool, embedded)
    preprocessing, batch_size = parts.test_preprocessing(config.data), config.evaluation.evaluation_batch_size
    decoded = list(inference_batches(images, preprocessing, batch_size))
    embed, everything = parts.image_embedder(config, inference, images, blocks), np.arange(len(images))
    tasks = {
        "inference pass": lambda: embed(everything),
        "reset": projections.begin,
        "model alone, images decoded before": lambda: [inference(batch).numpy() for batch in decoded],
    }
    for epochs in REMEMBERED_EPOCHS:
        name, task = remembering_reset(config, model, images, epochs * config.training.steps_per_epoch)
        tasks[name] = task
    seconds = in_turns(tasks, options.repeats)
    assert all(len(np.unique(one)) == len(one) for one in embedded), "an image was embedded twice"
    assert all(len(one) == len(images) for one in embedded), "not every image is in the pool"
    return len(images), seconds


def remembering_reset(
    config: ExperimentConfig, model: tf.keras.Model, images: ImageCollection, steps: int
) -> tuple[str, Callable[[], object]]:
    """A reset with a memory of so many steps, as it is after these, and what to call it."""
    projection = dataclasses.replace(config.projection, pool_memory_steps=steps)
    config = dataclasses.replace(config, projection=projection)
    loss = parts.make_loss(config, images.num_classes)
    inference, blocks = (
        parts.make_inference(config, model),
        SmallerBlocks(config.evaluation.evaluation_batch_size),
    )
    projections = parts.make_projections(config, model, inference, loss, images, blocks)
    assert projections is not None
    memory = projections.memory
    assert memory is not None
    sampler, note = make_sampler(config.data, images, config.run.seed), tf.function(memory.note)
    size = config.model.embedding_size
    for step in range(steps):
        rows = sampler.batch(step)
        labels = np.stack([images.labels[rows], images.image_ids[rows]], 1).astype(np.int32)
        note(tf.constant(labels), tf.random.stateless_normal([len(rows), size], [0, step]))
    written = memory.written.numpy()

    def reset() -> None:
        memory.written.assign(written)
        projections.begin()

    share = float((written >= 0).mean())
    return f"reset, {share:.0%} remembered from {steps} steps", reset


def counted(pool: Any, embedded: list[np.ndarray]) -> None:
    """Keeps a list of the images that a pool embeds."""
    assert isinstance(pool, ProxyPool)
    embed = pool._embed_images

    def embed_images(indices: np.ndarray) -> np.ndarray:
        embedded.append(indices)
        return embed(indices)

    pool._embed_images = embed_images


def measure_k_center(repeats: int) -> dict[str, float]:
    generator = np.random.default_rng(0)
    classes = SIZES["sop"].classes
    pool = generator.standard_normal([DRAWS, classes, DIMENSIONS]).astype(np.float32)
    covered = generator.standard_normal([PROXIES_PER_CLASS, classes, DIMENSIONS]).astype(np.float32)

    def choose() -> object:
        indices, centers = greedy_k_center(tf.constant(pool), tf.constant(covered), PROXIES_PER_CLASS)
        return indices.numpy(), centers.numpy()

    found = times(in_turns({"": choose}, repeats)[""])
    return {"seconds": found.median, "least": found.least, "processor_seconds": found.processor}


def count_images() -> dict[str, int]:
    size = SIZES["sop"]
    sampler = OnePerClassSampler(simulated_labels(size.classes, size.images), window=DRAWS)
    draws = sampler.draws(0, DRAWS)
    return {"images": size.images, "draws": int(draws.size), "embedded": len(np.unique(draws))}


def rows(seconds: Seconds) -> Iterator[dict[str, Any]]:
    floor = next(iter(seconds.values()))
    for name, found in seconds.items():
        summary, against = times(found), ratio(found, floor)
        yield {
            "name": name,
            "seconds": summary.median,
            "least": summary.least,
            "most": summary.most,
            "processor_seconds": summary.processor,
            "ratio": against.elapsed,
            "processor_ratio": against.processor,
        }


def table(results: dict[str, Any]) -> Iterator[str]:
    yield f"On the {results['images']:,} training images of the emoji:"
    yield ""
    yield "| | s (least to most) | ratio | processor s | ratio |"
    yield "|---|---|---|---|---|"
    for row in results["resets"]:
        yield (
            "| {name} | {seconds:.2f} ({least:.2f} to {most:.2f}) | {ratio:.2f} | {processor_seconds:.2f} | "
            "{processor_ratio:.2f} |"
        ).format(**row)
    yield ""
    yield (
        f"Greedy k-center of 11,318 × {DRAWS} × {DIMENSIONS}, {PROXIES_PER_CLASS} centers given and as many "
        "chosen: {seconds:.2f} s, {processor_seconds:.2f} s of the processor (aim: {aim:g} s)."
    ).format(aim=MOST_SECONDS, **results["k_center"])
    yield ""
    yield (
        "With b = {b} and as many images and classes as Stanford Online Products ({images:,} images), "
        "a reset embeds {embedded:,} images; the original, one per draw, {draws:,}."
    ).format(b=DRAWS, **results["counts"])


def headlines(results: dict[str, Any]) -> Iterator[Headline]:
    reset = next(row for row in results["resets"] if row["name"] == "reset")
    yield Headline("a reset, to a bare inference pass over its images", reset["ratio"], "×", 1.1)
    k_center = f"k-center of 11,318 × {DRAWS} × {DIMENSIONS}"
    yield Headline(k_center, results["k_center"]["seconds"], " s", MOST_SECONDS)


if __name__ == "__main__":
    main()
