"""Evaluation and choice of proxies, divided among the replicas and workers of a strategy."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.pipeline import InferenceBatches
from ccp_dml.data.sampling import OnePerClassSampler
from ccp_dml.distributed.workers import Workers
from ccp_dml.evaluation.embedding import Embedder, SmallerBlocks
from ccp_dml.evaluation.options import EvaluationOptions
from ccp_dml.experiment.build import compiled_inference
from ccp_dml.experiment.scoring import Scorer
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import PoolMemory, ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from tests.data.counted_images import SIDE, collection

SIZE, CLASSES, PER_CLASS, DRAWS = 3, 5, 2, 4


@dataclass
class Work:
    """The results of divided work, equal on all workers, and the images that this process has read.

    Attributes:
        embedded: embeddings of queries, gallery and training images; principal components of the queries.
        scores: metrics of every query.
        proxies: proxies [K, C, D] after each of two choices; the second memory holds the first pool.
        chosen: images of the proxies, after each choice.
        copies: True if all replicas of this process have equal proxies.
        memory: embeddings in the memory of the pool.
        staleness: staleness of the last proxies.
        read: rows of the images that were read, by use.
    """

    embedded: list[np.ndarray]
    scores: np.ndarray
    proxies: list[np.ndarray]
    chosen: list[np.ndarray]
    copies: bool
    memory: np.ndarray
    staleness: float
    read: dict[str, list[int]]

    @property
    def numbers(self) -> list[np.ndarray]:
        """All arrays but `read`."""
        rest = [self.scores, self.memory, np.array(self.staleness)]
        return [*self.embedded, *self.proxies, *self.chosen, *rest]

    def to_arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Returns all arrays, by name with a prefix, for a file."""
        found = {
            name: np.asarray(getattr(self, name)) for name in ("scores", "copies", "memory", "staleness")
        }
        for name in ("embedded", "proxies", "chosen"):
            found |= {f"{name} {number}": array for number, array in enumerate(getattr(self, name))}
        found |= {f"read {name}": np.array(rows, int) for name, rows in self.read.items()}
        return {prefix + name: array for name, array in found.items()}

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], prefix: str) -> Work:
        """Restores what `to_arrays` returned."""

        def arrays_of(name: str) -> dict[str, np.ndarray]:
            start = f"{prefix}{name} "
            return {key.removeprefix(start): value for key, value in arrays.items() if key.startswith(start)}

        return cls(
            embedded=list(arrays_of("embedded").values()),
            scores=arrays[f"{prefix}scores"],
            proxies=list(arrays_of("proxies").values()),
            chosen=list(arrays_of("chosen").values()),
            copies=bool(arrays[f"{prefix}copies"]),
            memory=arrays[f"{prefix}memory"],
            staleness=float(arrays[f"{prefix}staleness"]),
            read={name: rows.tolist() for name, rows in arrays_of("read").items()},
        )


def divided_work(strategy: tf.distribute.Strategy | None, queries: int = 7) -> Work:
    """Embeds, scores and chooses proxies twice, from fixed weights and images."""
    workers = Workers(strategy)
    preprocessing = TestPreprocessing(image_size=SIDE, shorter_side=SIDE)
    with contextlib.nullcontext() if strategy is None else strategy.scope():
        initial = tf.keras.initializers.GlorotNormal(seed=1)
        layers = [tf.keras.layers.Flatten(), tf.keras.layers.Dense(SIZE, kernel_initializer=initial)]
        model = tf.keras.Sequential([tf.keras.Input([SIDE, SIDE, 3]), *layers])
        proxies = Proxies(CLASSES, PER_CLASS, SIZE)
    sets = {"queries": collection(queries, 0), "gallery": collection(5, 1), "training": collection(6, 2)}
    scorer = Scorer(
        EvaluationOptions(pca_dim=2),
        preprocessing,
        sets["queries"],
        sets["gallery"],
        training=[sets["training"]],
        blocks=SmallerBlocks(2),
        workers=workers,
    )
    embedded = scorer.embed(Embedder(model, "unit", workers))
    evaluation = scorer.score(embedded, scorer.fit(embedded))

    sets["pool"] = images = collection(CLASSES * DRAWS, 3, CLASSES)
    embedder = Embedder(compiled_inference(model, SIDE), "none")

    def embed(indices: np.ndarray) -> np.ndarray:
        return embedder(InferenceBatches(images, preprocessing, 4).of(indices))

    memory = PoolMemory(images.image_ids, SIZE, 5)
    sampler = OnePerClassSampler(images.labels, 0, window=DRAWS)
    pool = ProxyPool(sampler.draws, embed, memory, workers)
    # With this option no staleness is measured, which would read images.
    options = ProjectionOptions(pool_size=DRAWS, ccp_reset_rule="fixed", ccp_step_at_batch=True)
    projections = AlternatingProjections(model.trainable_variables, proxies, pool, options)
    tables, chosen = [], []
    for choose in (projections.begin, lambda: projections.update(0.5)):
        choose()
        tables.append(proxies.by_class.numpy())
        chosen.append(projections.chooser.images.numpy())
    read = {name: list(images.source.rows) for name, images in sets.items()}
    model.trainable_variables[0].assign(model.trainable_variables[0] * 1.5)
    copies = [copy.numpy() for copy in getattr(proxies.embeddings, "values", [proxies.embeddings])]
    return Work(
        [embedded.test, embedded.gallery, embedded.training, evaluation.embeddings],
        evaluation.result.columns(),
        tables,
        chosen,
        all((copy == copies[0]).all() for copy in copies),
        memory.embeddings.numpy(),
        projections.chooser.staleness(),
        read,
    )


def assert_same_work(found: Work, expected: Work) -> None:
    """Raises unless numbers are equal within rounding, and images equal."""
    for name in ("embedded", "proxies"):
        for mine, other in zip(getattr(found, name), getattr(expected, name)):
            np.testing.assert_allclose(mine, other, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(found.chosen, expected.chosen)
    np.testing.assert_allclose(found.memory, expected.memory, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.staleness, expected.staleness, rtol=1e-4)
    assert found.copies
    assert expected.staleness > 0.1


def assert_read_once(read: dict[str, list[int]], queries: int = 7) -> None:
    """Raises unless every image was read once."""
    numbers = {"queries": queries, "gallery": 5, "training": 6, "pool": CLASSES * DRAWS}
    for name, number in numbers.items():
        assert sorted(read[name]) == list(range(number)), name
