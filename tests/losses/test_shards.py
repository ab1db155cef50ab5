"""Losses with sharded proxies against the same losses in one place; each shard is a thread.

Some shards have a class less than others, or none at all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.distributed.shards import SINGLE_SHARD, ReplicaShards
from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs, masked_logsumexp
from ccp_dml.models.proxies import Proxies
from tests.losses.cases import BASIC, NUM_CLASSES, SIZE, WRAPPED, LossCase, batch, value_and_gradients
from tests.losses.shard_cases import EXACT, REFUSED, ShardOfProxies, in_threads, table_of, with_proxies

_BATCHES = 2
_NEEDS_ALL = "needs the proxies of all classes in one place"
# The only value of `proxy_anchor` that each formula is defined for; None for both.
_ONLY_ANCHOR = {
    "contrastive": None,
    "original_contrastive": None,
    "triplet": None,
    "multi_similarity": False,
    "margin": None,
    "cross_entropy": False,
    "proxy_anchor": True,
    "proxy_nca": False,
    "soft_triple": False,
}


def _unsharded(case: LossCase) -> tuple[list[Any], np.ndarray]:
    loss = case.build()
    table = table_of(7, loss.proxies)
    loss.proxies.reset(table)
    return _found(loss), table


def _found(loss: Any) -> list[Any]:
    """(Value, gradient of the embeddings, gradient [K, classes, D]) of batches, one after the other."""
    found = []
    for seed in range(_BATCHES):
        labels, embeddings = batch(seed)
        embeddings = tf.convert_to_tensor(embeddings)
        table = loss.proxies.embeddings
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss.call(labels, embeddings)
        of_embeddings, of_table = tape.gradient(value, [embeddings, table])
        of_table = tf.reshape(of_table, [loss.proxies.proxies_per_class, -1, SIZE])
        found.append((float(value), of_embeddings.numpy(), of_table.numpy()))
    return found


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("case", EXACT)
def test_values_and_gradients_are_those_without_shards(case: LossCase, count: int) -> None:
    expected, table = _unsharded(case)
    size = math.ceil(NUM_CLASSES / count)

    def work(index: int, shards: ReplicaShards) -> list[Any]:
        part = ShardOfProxies(table, index * size, size, shards)
        return _found(with_proxies(case.build(), part))

    by_shard = in_threads(count, work)
    for number, (value, of_embeddings, of_table) in enumerate(expected):
        assert np.linalg.norm(of_table) > 0.0
        for found in by_shard:
            np.testing.assert_allclose(found[number][0], value, rtol=1e-5)
            np.testing.assert_allclose(
                found[number][1], of_embeddings, rtol=1e-5, atol=1e-5 * np.abs(of_embeddings).max()
            )
        parts = np.concatenate([found[number][2] for found in by_shard], axis=1)
        np.testing.assert_allclose(
            parts[:, :NUM_CLASSES], of_table, rtol=1e-5, atol=1e-5 * np.abs(of_table).max()
        )
        np.testing.assert_array_equal(parts[:, NUM_CLASSES:], 0.0)


@pytest.mark.parametrize("case", [case for case in EXACT if "/" not in case.id])
def test_sharded_values_agree_with_loops_in_float64(case: LossCase) -> None:
    loss = case.build()
    table = table_of(8, loss.proxies)
    loss.proxies.reset(table)
    labels, embeddings = batch(3)

    def work(index: int, shards: ReplicaShards) -> float:
        part = ShardOfProxies(table, index * 2, 2, shards)
        return float(with_proxies(case.build(), part).call(labels, embeddings))

    expected = case.oracle(loss, embeddings.astype(np.float64), labels)
    np.testing.assert_allclose(in_threads(3, work), expected, rtol=2e-5)


@pytest.mark.parametrize("with_zero", [False, True])
def test_logsumexp_over_shards_agrees_with_loops_in_float64(with_zero: bool) -> None:
    """Values that overflow if not shifted, a row of which one shard has nothing, and a row without any."""
    random = np.random.default_rng(0)
    values = random.normal(0.0, 200.0, (6, 9)).astype(np.float32)
    mask = random.random((6, 9)) < 0.6
    mask[0, :3], mask[1] = False, False
    expected, slopes = np.full(6, np.finfo(np.float32).min), np.zeros((6, 9))
    for row in range(6):
        terms = [float(values[row, column]) for column in range(9) if mask[row, column]]
        terms += [0.0] * with_zero
        if terms:
            largest = max(terms)
            total = sum(math.exp(term - largest) for term in terms)
            expected[row] = largest + math.log(total)
            for column in range(9):
                if mask[row, column]:
                    slopes[row, column] = math.exp(float(values[row, column]) - expected[row])

    def work(index: int, shards: ReplicaShards) -> tuple[np.ndarray, np.ndarray]:
        here = slice(3 * index, 3 * index + 3)
        part = tf.constant(values[:, here])
        with tf.GradientTape() as tape:
            tape.watch(part)
            found = masked_logsumexp(part, tf.constant(mask[:, here]), with_zero, shards)
        return found.numpy(), tape.gradient(found, part).numpy()

    found = in_threads(3, work)
    for result, _ in found:
        np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(np.concatenate([slope for _, slope in found], axis=1), slopes, atol=1e-5)


def test_diagnostics_count_the_pairs_of_all_shards() -> None:
    case = LossCase("contrastive", {"proxies_per_class": 2})
    loss = case.build()
    table = table_of(9, loss.proxies)
    loss.proxies.reset(table)
    labels, embeddings = batch(1)

    def work(index: int, shards: ReplicaShards) -> dict[str, tf.Tensor]:
        part = ShardOfProxies(table, index * 3, 3, shards)
        return with_proxies(case.build(), part).diagnostics(labels, embeddings)

    expected, found = loss.diagnostics(labels, embeddings), in_threads(2, work)
    for of_shard in found:
        np.testing.assert_allclose(of_shard["active_pairs"], expected["active_pairs"], rtol=1e-6)
        for kind in ("positive_distances", "negative_distances"):
            np.testing.assert_allclose(np.sort(of_shard[kind]), np.sort(expected[kind]), rtol=1e-5)


def _build_sharded(case: LossCase) -> MetricLoss:
    sizes = {"num_classes": NUM_CLASSES, "embedding_size": SIZE}
    return registry.build(case.path, shard_proxies=True, options=case.options, **sizes)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.id)
def test_losses_that_need_all_proxies_are_refused(case: LossCase) -> None:
    with pytest.raises(ValueError, match=_NEEDS_ALL):
        _build_sharded(case)
    loss = case.build()
    table = table_of(1, loss.proxies)
    labels, embeddings = batch(1)
    part = ShardOfProxies(table, 0, 3, ReplicaShards())
    with pytest.raises(ValueError, match=_NEEDS_ALL):
        with_proxies(loss, part).call(labels, embeddings)


@pytest.mark.parametrize("case", EXACT)
def test_losses_that_are_exact_are_built(case: LossCase) -> None:
    assert _build_sharded(case).proxies is not None


@pytest.mark.parametrize("path", ["contrastive", "xbm/triplet"])
def test_losses_without_proxies_have_nothing_to_shard(path: str) -> None:
    with pytest.raises(ValueError, match=f"loss '{path}' has no proxies"):
        _build_sharded(LossCase(path))


@pytest.mark.parametrize("case", [*BASIC, *WRAPPED], ids=lambda case: case.id)
def test_every_loss_is_exact_refused_or_without_proxies(case: LossCase) -> None:
    refused = case.path.endswith("triplet") or "miner" in case.options
    if case.build().proxies is None:
        with pytest.raises(ValueError, match="has no proxies"):
            _build_sharded(case)
    elif refused:
        with pytest.raises(ValueError, match=_NEEDS_ALL):
            _build_sharded(case)
    else:
        assert _build_sharded(case).proxies is not None


@pytest.mark.parametrize("proxy_anchor", [None, False, True])
@pytest.mark.parametrize("name", _ONLY_ANCHOR)
def test_samples_or_proxies_as_anchors(name: str, proxy_anchor: bool | None) -> None:
    only = _ONLY_ANCHOR[name]
    case = LossCase(name, {"proxies_per_class": 2})
    if proxy_anchor is not None:
        case.options["proxy_anchor"] = proxy_anchor
    if only is not None and proxy_anchor not in (None, only):
        with pytest.raises(
            ValueError, match=f"proxy_anchor of .* is {proxy_anchor}; it is defined for {only}"
        ):
            _build_sharded(case)
    elif name == "triplet" and not proxy_anchor:
        with pytest.raises(ValueError, match=_NEEDS_ALL):
            _build_sharded(case)
    else:
        assert _build_sharded(case).proxies is not None


def test_a_formula_without_columns_in_shards_is_not_in_shards() -> None:
    class MeanSimilarity(PairLoss):
        def sums(self, pairs: Pairs) -> list[tf.Tensor]:
            return [tf.reduce_mean(pairs.similarities), tf.constant(1.0)]

    loss = MeanSimilarity(proxies_per_class=1, num_classes=NUM_CLASSES, embedding_size=SIZE)
    assert not loss.in_shards
    by_proxy = MeanSimilarity(
        proxies_per_class=1, num_classes=NUM_CLASSES, embedding_size=SIZE, proxy_anchor=True
    )
    assert by_proxy.in_shards


def test_sharded_and_other_sets_do_not_mix() -> None:
    part = ShardOfProxies(np.zeros((1, NUM_CLASSES, SIZE), np.float32), 0, 3, ReplicaShards())
    with pytest.raises(ValueError, match="some sets of proxies are sharded and others are not"):
        Contrastive(shared_proxies=[Proxies(NUM_CLASSES, 1, SIZE), part])


def test_one_shard_changes_nothing() -> None:
    values = tf.constant([1.0, 2.0])
    assert SINGLE_SHARD.sum(values) is values
    assert SINGLE_SHARD.enter(values) is values
    loss = registry.build("proxy_nca", num_classes=NUM_CLASSES, embedding_size=SIZE, shard_proxies=True)
    whole = registry.build("proxy_nca", num_classes=NUM_CLASSES, embedding_size=SIZE)
    whole.proxies.reset(loss.proxies.by_class)
    labels, embeddings = batch(2)
    for one, other in zip(
        value_and_gradients(loss, labels, embeddings)[:2], value_and_gradients(whole, labels, embeddings)
    ):
        np.testing.assert_array_equal(one, other)
