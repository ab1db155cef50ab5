"""Memory of proxies on each replica, and bytes that it hands over in a step, by formula."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

CLASSES = (10**4, 10**5, 10**6, 10**7)
PROXIES_PER_CLASS, DIMENSIONS, REPLICAS = (1, 4), (128, 512), (1, 2, 8)
BATCH_SIZE = 512
# The table, its gradient, and the two moments of Adam.
COPIES = 4
FLOAT = 4
# For each sample: largest term and sum of the log-sum-exps over all and over the positives, and whether there
# is a positive.
SOFTMAX_NUMBERS = 5


class Proxies(NamedTuple):
    """C classes, K proxies of each, D dimensions; a global batch of B samples; R replicas."""

    classes: int
    per_class: int
    dimension: int
    batch_size: int
    replicas: int

    @property
    def rows(self) -> int:
        """Proxies on a replica."""
        return self.per_class * math.ceil(self.classes / self.replicas)

    @property
    def bytes_of_table(self) -> int:
        """Bytes of the proxies on a replica."""
        return FLOAT * self.rows * self.dimension

    @property
    def bytes_of_distances(self) -> int:
        """Bytes of a matrix of all samples by the proxies of a replica; a loss holds several at a time."""
        return FLOAT * self.rows * self.batch_size

    @property
    def bytes_of_loss(self) -> int:
        """Bytes that a replica hands over for a softmax loss: the gradient, and numbers for each sample."""
        return FLOAT * self.batch_size * (self.dimension + SOFTMAX_NUMBERS) if self.replicas > 1 else 0

    @property
    def bytes_of_embeddings(self) -> int:
        """Bytes that a replica hands over so that all have the embeddings of the batch."""
        return FLOAT * self.batch_size * self.dimension if self.replicas > 1 else 0


def memory_table() -> Iterator[str]:
    """The table of the memory on a replica."""
    yield "| C | K | D | " + " | ".join(f"R = {count}" for count in REPLICAS) + " |"
    yield "|---:|---:|---:|" + "---:|" * len(REPLICAS)
    for classes in CLASSES:
        for per_class in PROXIES_PER_CLASS:
            for dimension in DIMENSIONS:
                cells = (
                    _cell(Proxies(classes, per_class, dimension, BATCH_SIZE, count)) for count in REPLICAS
                )
                yield f"| {classes:,} | {per_class} | {dimension} | " + " | ".join(cells) + " |"


def traffic_table() -> Iterator[str]:
    """The table of the bytes that a replica hands over in a step."""
    yield "| D | sharded | whole, K = 1, C = " + " | ".join(f"{count:,}" for count in CLASSES) + " |"
    yield "|---:|---:|" + "---:|" * len(CLASSES)
    for dimension in DIMENSIONS:
        one = Proxies(1, 1, dimension, BATCH_SIZE, 2)
        cells = [size(one.bytes_of_embeddings + one.bytes_of_loss)]
        for classes in CLASSES:
            whole = FLOAT * classes * dimension
            cells.append(size(one.bytes_of_embeddings + whole))
        yield f"| {dimension} | " + " | ".join(cells) + " |"


def size(count: float) -> str:
    """A number of bytes in words, in powers of 1000."""
    for unit in ("B", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _cell(of: Proxies) -> str:
    return f"{size(COPIES * of.bytes_of_table)} + {size(of.bytes_of_distances)}"
