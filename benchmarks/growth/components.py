"""Components of the library whose growth is measured, and their sizes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.data.sampling import MPerClassSampler, OnePerClassSampler
from ccp_dml.evaluation.metrics import evaluate_retrieval
from ccp_dml.geometry import greedy_k_center
from ccp_dml.losses import registry
from ccp_dml.projections.pool import ProxyPool

BATCHES = 2_000
_IMAGES_PER_CLASS = 20

Call = Callable[[], object]


@dataclass(frozen=True)
class Sizes:
    """Images N, classes C, dimension D, proxies per class K, batch B, memory rows M."""

    N: int = 8_000
    C: int = 1_000
    D: int = 128
    K: int = 4
    B: int = 128
    M: int = 4_096


USUAL = Sizes()


@dataclass(frozen=True)
class Component:
    """A component of the library.

    Attributes:
        title: its name in the tables.
        make: prepares a call at given sizes.
        axes: values of each size that grows; the other sizes stay as in `USUAL`.
    """

    title: str
    make: Callable[[Sizes], Call]
    axes: Mapping[str, tuple[int, ...]]

    def smallest(self) -> Sizes:
        """The sizes with all growing ones at their smallest."""
        return replace(USUAL, **{axis: values[0] for axis, values in self.axes.items()})


def _normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _labels(images: int) -> np.ndarray:
    return np.random.default_rng(0).permutation(np.arange(images) // _IMAGES_PER_CLASS)


def retrieval(sizes: Sizes) -> Call:
    embeddings, labels = _normal(sizes.N, sizes.D), _labels(sizes.N)
    return lambda: evaluate_retrieval(embeddings, labels)


def k_center(sizes: Sizes) -> Call:
    pool, covered = tf.constant(_normal(2 * sizes.K, sizes.C, sizes.D)), tf.zeros([1, sizes.C, sizes.D])
    return lambda: greedy_k_center(pool, covered, sizes.K)[1].numpy()


def sampler(sizes: Sizes) -> Call:
    labels = _labels(sizes.N)
    return lambda: MPerClassSampler(labels, 8, 4)


def batches(sizes: Sizes) -> Call:
    made, steps = MPerClassSampler(_labels(sizes.N), sizes.B // 4, 4), iter(range(10**9))
    return lambda: [made.batch(next(steps)) for _ in range(BATCHES)]


def pool(sizes: Sizes) -> Call:
    """The draws and the pool, its embeddings from a table."""
    table = _normal(1_000, sizes.D)
    draws = OnePerClassSampler(_labels(sizes.C * _IMAGES_PER_CLASS), window=2 * sizes.K).draws
    drawn = ProxyPool(draws, lambda images: table[images % len(table)])
    return lambda: drawn(0, 2 * sizes.K)


def proxy_loss(sizes: Sizes) -> Call:
    return _loss("ccp/contrastive", sizes, {"proxies_per_class": sizes.K})


def pair_loss(sizes: Sizes) -> Call:
    return _loss("contrastive", sizes, {})


def triplet_loss(sizes: Sizes) -> Call:
    return _loss("triplet", sizes, {})


def memory_loss(sizes: Sizes) -> Call:
    return _loss("xbm/contrastive", sizes, {"memory_size": sizes.M, "start_step": 0})


def _loss(path: str, sizes: Sizes, options: dict[str, Any]) -> Call:
    """Value and gradients for embeddings and proxies."""
    loss = registry.build(path, num_classes=sizes.C, embedding_size=sizes.D, options=options)
    if path.startswith("xbm/"):
        loss.memory.assign(_normal(sizes.M, sizes.D))
        loss.memory_labels.assign(np.arange(sizes.M) % sizes.C)
        loss.memory_ids.assign(-1 - np.arange(sizes.M))
        loss.rows_written.assign(sizes.M)
    embeddings = tf.constant(_normal(sizes.B, sizes.D))
    labels = tf.constant(np.arange(sizes.B) % (sizes.B // 4))
    variables = list(loss.trainable_variables)

    @tf.function(autograph=False)
    def value_and_gradients(labels: tf.Tensor, embeddings: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return [value, *tape.gradient(value, [embeddings, *variables])]

    traced = value_and_gradients.get_concrete_function(labels, embeddings)
    return lambda: traced(labels, embeddings)[0].numpy()


_DIMENSIONS = (64, 128, 256, 512)
_CLASSES = (1_000, 4_000, 16_000, 64_000)
_IMAGES = (30_000, 100_000, 300_000, 1_000_000, 3_000_000)

COMPONENTS = {
    "retrieval": Component(
        "Retrieval, N × N", retrieval, {"N": (4_000, 8_000, 16_000, 32_000), "D": _DIMENSIONS}
    ),
    "k_center": Component(
        "k-center, K of a pool of 2K", k_center, {"C": _CLASSES, "D": _DIMENSIONS, "K": (1, 2, 4, 8)}
    ),
    "pool": Component("Drawing a pool of 2K", pool, {"C": _CLASSES, "K": (1, 2, 4, 8)}),
    "sampler": Component("Making the sampler", sampler, {"N": _IMAGES}),
    "batches": Component(f"{BATCHES} batches", batches, {"N": _IMAGES, "B": (32, 64, 128, 256)}),
    "proxy_loss": Component(
        "Loss with proxies (ccp/contrastive)",
        proxy_loss,
        {"C": _CLASSES, "D": _DIMENSIONS, "K": (1, 2, 4, 8), "B": (32, 64, 128, 256)},
    ),
    "pair_loss": Component(
        "Pair loss (contrastive)", pair_loss, {"B": (256, 512, 1024, 2048), "D": _DIMENSIONS}
    ),
    "triplet_loss": Component("Loss of all triplets (triplet)", triplet_loss, {"B": (256, 512, 1024, 2048)}),
    "memory_loss": Component(
        "Memory (xbm/contrastive)",
        memory_loss,
        {"M": (1_024, 4_096, 16_384, 65_536), "B": (32, 64, 128, 256)},
    ),
}
