"""The memory of XBM against lists and loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.losses.contrastive import Contrastive, OriginalContrastive
from ccp_dml.losses.cross_batch_memory import CrossBatchMemory
from ccp_dml.losses.margin import Margin
from ccp_dml.losses.multi_similarity import MultiSimilarity
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.triplet import Triplet
from tests.losses import oracles

SIZE = 3
_BASES: dict[str, tuple[type[PairLoss], dict[str, Any]]] = {
    "contrastive": (Contrastive, {"positive_margin": 0.1, "negative_margin": 1.1}),
    "original_contrastive": (OriginalContrastive, {"margin": 0.2}),
    "multi_similarity": (MultiSimilarity, {"alpha": 2.0, "beta": 10.0, "threshold": 0.4}),
    "triplet": (Triplet, {"margin": 0.3}),
    "margin": (Margin, {"alpha": 0.2, "beta": 0.9, "beta_weight": 0.1}),
}
_COSINE = ("original_contrastive", "multi_similarity")


class ListedMemory:
    """The expected memory: the last rows, oldest first."""

    def __init__(self, size: int, start_step: int) -> None:
        self.size, self.start_step, self.steps = size, start_step, 0
        self.rows: list[tuple[np.ndarray, int, Any]] = []

    def write(self, embeddings: np.ndarray, labels: np.ndarray, ids: list[Any]) -> None:
        self.rows += list(zip(embeddings.astype(np.float64), labels, ids))
        self.rows = self.rows[-self.size :]
        self.steps += 1

    @property
    def in_use(self) -> bool:
        return len(self.rows) == self.size and self.steps >= self.start_step

    def loss(
        self, name: str, options: dict[str, Any], embeddings: np.ndarray, labels: Any, ids: Any, exclude: bool
    ) -> float:
        distance = "cosine" if name in _COSINE else "euclidean"
        references, reference_labels, reference_ids = zip(*self.rows)
        pairs = oracles.listed_pairs(
            embeddings, labels, np.stack(references), np.array(reference_labels), distance=distance
        )
        if exclude:
            pairs.positives = [
                [j for j in row if reference_ids[j] != ids[i]] for i, row in enumerate(pairs.positives)
            ]
        return getattr(oracles, name)(pairs, **options)


def _batch(random: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = random.integers(0, 3, size).astype(np.int32)
    # Few images, so that some come again while they are in the memory.
    ids = (labels * 5 + random.integers(0, 5, size)).astype(np.int32)
    return labels, ids, random.normal(0.0, 0.7, (size, SIZE)).astype(np.float32)


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize("with_ids", [True, False])
@pytest.mark.parametrize("name", _BASES)
def test_value_and_gradient_agree_with_lists(name: str, with_ids: bool, exclude: bool) -> None:
    kind, options = _BASES[name]
    loss = CrossBatchMemory(
        kind(**options), SIZE, 10, 0.7, pair_weight=0.3, start_step=3, exclude_own_copy=exclude
    )
    listed, random, used = ListedMemory(10, 3), np.random.default_rng(1), 0
    for step, size in enumerate((4, 6, 5, 7, 3)):
        labels, ids, embeddings = _batch(random, size)
        points = tf.constant(embeddings)
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = loss(np.stack([labels, ids], axis=1) if with_ids else labels, points)
        identities = list(ids) if with_ids else [(step, i) for i in range(size)]
        listed.write(embeddings, labels, identities)

        def expected(points: np.ndarray, labels: Any = labels, identities: Any = identities) -> float:
            distance = "cosine" if name in _COSINE else "euclidean"
            total = 0.3 * getattr(oracles, name)(
                oracles.listed_pairs(points, labels, distance=distance), **options
            )
            if listed.in_use:
                total += 0.7 * listed.loss(name, options, points, labels, identities, exclude)
            return total

        assert bool(loss.memory_in_use) == listed.in_use
        used += listed.in_use
        exact = embeddings.astype(np.float64)
        np.testing.assert_allclose(value, expected(exact), rtol=2e-5)
        direction = random.normal(size=exact.shape)
        slope = (expected(exact + 1e-6 * direction) - expected(exact - 1e-6 * direction)) / 2e-6
        if exclude or name in _COSINE:  # A sample on its own copy is a kink of the Euclidean distance.
            gradient = tape.gradient(value, points).numpy()
            np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-3, atol=1e-5)
    assert used == 3


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 12), st.lists(st.integers(1, 15), min_size=1, max_size=6), st.booleans())
def test_memory_holds_the_last_rows_of_batches_of_any_size(
    size: int, batches: list[int], with_ids: bool
) -> None:
    loss = CrossBatchMemory(Contrastive(), SIZE, size, start_step=0)
    random, written = np.random.default_rng(0), []
    for batch_size in batches:
        labels, ids, embeddings = _batch(random, batch_size)
        loss(np.stack([labels, ids], axis=1) if with_ids else labels, embeddings)
        written += list(zip(embeddings, labels, ids))
    total = len(written)
    for serial in range(max(0, total - size), total):
        embedding, label, image_id = written[serial]
        np.testing.assert_array_equal(loss.memory[serial % size], embedding)
        assert int(loss.memory_labels[serial % size]) == label
        assert int(loss.memory_ids[serial % size]) == (image_id if with_ids else -1 - serial)
    assert int(loss.rows_written) == total
    assert int(loss.steps) == len(batches)


@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize("block", [1, 4, 5, 40, 100])
def test_blocks_give_the_same_values_and_gradients(block: int, by_row: bool) -> None:
    def made(anchors_per_block: int) -> CrossBatchMemory:
        base = Margin(0.2, 0.9, per_class=True, num_classes=3, beta_weight=0.1, proxy_anchor=by_row)
        return CrossBatchMemory(base, SIZE, 40, start_step=0, anchors_per_block=anchors_per_block)

    whole, blocked = made(0), made(block)
    compiled = tf.function(lambda y, e: _value_and_gradients(blocked, y, e))
    random = np.random.default_rng(2)
    for _ in range(4):
        labels, ids, embeddings = _batch(random, 15)
        labels = np.stack([labels, ids], axis=1)
        expected = _value_and_gradients(whole, labels, embeddings)
        found = compiled(tf.constant(labels), tf.constant(embeddings))
        for mine, other in zip(found, expected):
            np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-7)
    assert bool(blocked.memory_in_use)


def _value_and_gradients(loss: CrossBatchMemory, labels: Any, embeddings: Any) -> list[tf.Tensor]:
    points = tf.convert_to_tensor(embeddings)
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = loss(labels, points)
    return [value, *tape.gradient(value, [points, *loss.trainable_variables])]


def test_blocks_never_make_the_matrix_of_all_pairs() -> None:
    base = Triplet(0.3)
    loss = CrossBatchMemory(base, SIZE, 4000, start_step=0, anchors_per_block=2)
    function = tf.function(lambda y, e: _value_and_gradients(loss, y, e))
    graph = function.get_concrete_function(tf.zeros([64], tf.int32), tf.zeros([64, SIZE])).graph
    shapes = [
        output.shape
        for inner in _graphs(graph)
        for operation in inner.get_operations()
        for output in operation.outputs
    ]
    assert not [shape for shape in shapes if shape.rank and 64 in shape.as_list() and 4000 in shape.as_list()]
    assert [shape for shape in shapes if shape.rank and shape.as_list() == [2, 4000]]


def _graphs(graph: Any) -> list[Any]:
    found = [graph]
    for function in graph._functions.values():
        inner = getattr(function, "graph", None)
        if inner is not None:
            found.append(inner)
    return found


def test_memory_carries_no_gradient_and_is_not_trained() -> None:
    loss = CrossBatchMemory(Contrastive(), SIZE, 6, start_step=0)
    assert not loss.trainable_variables
    assert {variable.name for variable in loss.variables} == {
        f"{name}:0" for name in ("memory", "memory_labels", "memory_ids", "rows_written", "steps")
    }


def test_miner_acts_on_the_pairs_of_the_batch_with_mine_pairs_only() -> None:
    labels = np.repeat(np.arange(4, dtype=np.int32), 3)
    embeddings = np.random.default_rng(3).normal(0.0, 0.5, (12, SIZE)).astype(np.float32)
    plain = Contrastive(0.1, 1.2, average="all")
    mined = Contrastive(0.1, 1.2, average="all", miner="hard_negatives")
    for mine_pairs, expected in ((False, plain), (True, mined)):
        components = CrossBatchMemory(mined, SIZE, mine_pairs=mine_pairs).components(labels, embeddings)
        np.testing.assert_allclose(components["pair_loss"], expected(labels, embeddings), rtol=1e-6)
    assert not np.isclose(plain(labels, embeddings), mined(labels, embeddings))
