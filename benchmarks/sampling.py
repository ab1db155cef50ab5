"""Time and memory of choosing the images of an epoch, no image being read.

    python -m benchmarks.sampling             # both sizes and all samplers: 1 minute of the processor
    python -m benchmarks.sampling --size=sop  # as many as Stanford Online Products trains on

An epoch is as many batches as it takes to choose as many images as there are. Each row is a process of its
own, which imports no TensorFlow: it simulates labels (class sizes at random, at least two images, in random
order), makes the sampler, and asks for every batch. Seconds are those of making the sampler and of all
batches; the elapsed ones are held against the limits. Memory is the peak of the whole process, which includes
Python, NumPy and the labels; how much the process held before it made the sampler is beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks.measuring import Headline, megabytes, write
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
    classes: int
    images: int
    most_seconds: float
    most_megabytes: float


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
# Not an epoch, but what a new choice of proxies asks for.
POOL = f"proxy pool, {DRAWS} per class"


def main() -> None:
    options = parse_options()
    if options.measure:
        print(json.dumps(measure(options.measure, SIZES[options.size])))
        return
    rows = []
    for name in [options.size] if options.size else SIZES:
        for sampler in (*SAMPLERS, POOL):
            rows.append({"size": name, "sampler": sampler, **in_a_process(name, sampler)})
            print(cells(rows[-1]), flush=True)
    if not options.size:
        write("sampling", {"rows": rows}, table(rows), headlines(rows))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--size", choices=SIZES, help="one size, nothing is written")
    parser.add_argument("--measure", choices=(*SAMPLERS, POOL), help="measure one row in this process")
    return parser.parse_args()


def in_a_process(size: str, sampler: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sampling", f"--size={size}", f"--measure={sampler}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(done.stdout))


def measure(name: str, size: Size) -> dict[str, Any]:
    labels = simulated_labels(size.classes, size.images)
    before, batches = megabytes("VmRSS"), 1
    start, processor_start = time.perf_counter(), time.process_time()
    if name == POOL:
        OnePerClassSampler(labels, window=DRAWS).draws(0, DRAWS)
    else:
        sampler, batches = SAMPLERS[name](labels), -(-size.images // BATCH_SIZE)
        for step in range(batches):
            sampler.batch(step)
    return {
        "batches": batches,
        "seconds": round(time.perf_counter() - start, 3),
        "processor_seconds": round(time.process_time() - processor_start, 3),
        "peak_megabytes": round(megabytes("VmHWM"), 1),
        "megabytes_before": round(before, 1),
    }


def simulated_labels(classes: int, images: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    sizes = 2 + generator.multinomial(images - 2 * classes, np.full(classes, 1 / classes))
    labels = np.repeat(np.arange(classes), sizes)
    generator.shuffle(labels)
    return labels


def cells(row: dict[str, Any]) -> str:
    size = SIZES[row["size"]]
    limits = {"s": (row["seconds"], size.most_seconds), "MB": (row["peak_megabytes"], size.most_megabytes)}
    over = [f"{name} ≥ {most:g}" for name, (found, most) in limits.items() if found >= most]
    verdict = ", ".join(over) if row["sampler"] != POOL else ""
    return (
        f"| {row['sampler']} | {row['batches']:,} | {row['seconds']:.2f} | {row['processor_seconds']:.2f} | "
        f"{row['peak_megabytes']:.0f} | {row['megabytes_before']:.0f} | {verdict} |"
    )


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    for name, size in SIZES.items():
        yield (
            f"{size.classes:,} classes, {size.images:,} images, batches of {BATCH_SIZE}; an epoch is to cost "
            f"less than {size.most_seconds:g} s and {size.most_megabytes:g} MB:"
        )
        yield ""
        yield "| | batches | seconds | of the processor | peak MB | MB before | too much |"
        yield "|---|---|---|---|---|---|---|"
        yield from (cells(row) for row in rows if row["size"] == name)
        yield ""


def headlines(rows: list[dict[str, Any]]) -> Iterator[Headline]:
    for name, size in SIZES.items():
        found = [row for row in rows if row["size"] == name and row["sampler"] != POOL]
        epoch = f"an epoch of {size.images:,} images, slowest sampler"
        yield Headline(epoch, max(row["seconds"] for row in found), " s", size.most_seconds)
        peak = max(row["peak_megabytes"] for row in found)
        yield Headline(
            f"an epoch of {size.images:,} images, most of any sampler, whole process",
            peak,
            " MB",
            size.most_megabytes,
        )


if __name__ == "__main__":
    main()
