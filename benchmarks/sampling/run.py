"""Time and memory of choosing the images of an epoch; no image is read.

    python -m benchmarks.sampling.run             # two sizes and all samplers: a minute of the processor
    python -m benchmarks.sampling.run --quick     # the smaller size

An epoch has as many batches as it takes to choose as many images as there are. Each row has a process of its
own, which imports no TensorFlow: it simulates labels (random class sizes of at least two images, in random
order), makes the sampler and asks for every batch. Seconds are for making the sampler and all batches.
Memory is the peak of the whole process, with Python, NumPy and the labels; beside it is the memory before the
sampler was made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import results
from benchmarks.common.measuring import megabytes, timed
from benchmarks.common.processes import in_process
from ccp_dml.data.sampling import (
    ClassUniformSampler,
    MPerClassSampler,
    OnePerClassSampler,
    RandomSampler,
    RepresentativeSampler,
    Sampler,
)

CLASSES_PER_BATCH, SAMPLES_PER_CLASS, LIFETIME, DRAWS = 8, 4, 10, 7
BATCH_SIZE = CLASSES_PER_BATCH * SAMPLES_PER_CLASS


class Size(NamedTuple):
    """A data set, and the aims for its epoch."""

    classes: int
    images: int
    most_seconds: float
    most_megabytes: float


# The first one is as large as the training set of Stanford Online Products.
SIZES = {
    "sop": Size(11_318, 59_551, 1.0, 100.0),
    "large": Size(1_000_000, 10_000_000, 60.0, 2000.0),
}
SAMPLERS: dict[str, Callable[[np.ndarray], Sampler]] = {
    "m_per_class": lambda labels: MPerClassSampler(labels, CLASSES_PER_BATCH, SAMPLES_PER_CLASS),
    "m_per_class, representatives": lambda labels: RepresentativeSampler(
        labels, CLASSES_PER_BATCH, SAMPLES_PER_CLASS, LIFETIME
    ),
    "class_uniform": lambda labels: ClassUniformSampler(labels, BATCH_SIZE),
    "random": lambda labels: RandomSampler(len(labels), BATCH_SIZE),
}
# Not an epoch, but the draws of one choice of proxies.
POOL = f"proxy pool, {DRAWS} per class"


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    rows = [
        {"size": size, "sampler": sampler, **in_process(measure, sampler, SIZES[size])}
        for size in (["sop"] if options.quick else SIZES)
        for sampler in (*SAMPLERS, POOL)
    ]
    results.publish("sampling", {"rows": rows}, write=not options.quick)


def measure(name: str, size: Size) -> dict[str, Any]:
    """A row of the results; to be called in a new process."""
    labels = simulated_labels(size.classes, size.images)
    before = megabytes("VmRSS")
    batches = 1 if name == POOL else -(-size.images // BATCH_SIZE)

    def choose() -> None:
        if name == POOL:
            OnePerClassSampler(labels, window=DRAWS).draws(0, DRAWS)
            return
        sampler = SAMPLERS[name](labels)
        for step in range(batches):
            sampler.batch(step)

    elapsed, processor = timed(choose)
    return {
        "batches": batches,
        "seconds": round(elapsed, 3),
        "processor_seconds": round(processor, 3),
        "peak_megabytes": round(megabytes("VmHWM"), 1),
        "megabytes_before": round(before, 1),
    }


def simulated_labels(classes: int, images: int) -> np.ndarray:
    """Labels int64 [images] in random order, at least two of each class."""
    generator = np.random.default_rng(0)
    sizes = 2 + generator.multinomial(images - 2 * classes, np.full(classes, 1 / classes))
    labels = np.repeat(np.arange(classes), sizes)
    generator.shuffle(labels)
    return labels


if __name__ == "__main__":
    main()
