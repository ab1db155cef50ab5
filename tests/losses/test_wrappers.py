"""Properties of every wrapper: configurations, XLA, batches of any size, state, degenerate batches."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.cross_batch_memory import CrossBatchMemory
from ccp_dml.losses.distance_regularization import DistanceRegularization
from ccp_dml.losses.proxy_nca import ProxyNCA
from ccp_dml.losses.proxy_synthesis import ProxySynthesis
from ccp_dml.losses.virtual_softmax import VirtualSoftmax
from tests.losses.cases import BATCH, SIZE, WRAPPED, LossCase, arguments_of, batch, value_and_gradients
from tests.losses.test_degenerate import BATCHES

_EACH = pytest.mark.parametrize("case", WRAPPED, ids=lambda case: case.id)


def _warm(case: LossCase, seed: int = 0) -> MetricLoss:
    """A loss that has seen batches: memories are in use, statistics and counters are not initial."""
    loss = case.build(seed)
    for step in range(2):
        loss(*batch(seed + step))
    return loss


def _state(loss: MetricLoss) -> dict[str, np.ndarray]:
    return {variable.name: variable.numpy() for variable in loss.variables}


def _copy(loss: MetricLoss) -> MetricLoss:
    copy = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    for mine, other in zip(loss.variables, copy.variables):
        other.assign(mine)
    return copy


@_EACH
def test_config_round_trip(case: LossCase) -> None:
    loss = _warm(case)
    copy = _copy(loss)
    assert type(copy) is type(loss)
    assert type(copy.base) is type(loss.base)
    assert copy.get_config() == loss.get_config()
    assert set(loss.get_config()) == arguments_of(type(loss))
    for seed in (5, 6):
        assert copy(*batch(seed)).numpy() == loss(*batch(seed)).numpy()


@_EACH
def test_xla_and_graphs_give_the_same_values_gradients_and_state(case: LossCase) -> None:
    losses = [_warm(case) for _ in range(3)]
    for loss in losses:
        if isinstance(loss, ProxySynthesis):
            # XLA draws other rates.
            loss.mixing_rate = 0.3
    functions = [
        value_and_gradients,
        tf.function(value_and_gradients),
        tf.function(value_and_gradients, jit_compile=True),
    ]
    for seed in (2, 3, 4):
        labels, embeddings = (tf.constant(part) for part in batch(seed))
        (value, *gradients), *others = (f(loss, labels, embeddings) for f, loss in zip(functions, losses))
        for other_value, *other_gradients in others:
            np.testing.assert_allclose(other_value, value, rtol=1e-5)
            tf.nest.map_structure(
                lambda mine, other: np.testing.assert_allclose(other, mine, rtol=1e-4, atol=1e-6),
                gradients,
                other_gradients,
            )
    for other in losses[1:]:
        for mine, changed in zip(losses[0].variables, other.variables):
            np.testing.assert_allclose(changed, mine, rtol=1e-6)


@pytest.mark.slow
@_EACH
def test_batches_of_unknown_size(case: LossCase) -> None:
    loss, twin = _warm(case), _warm(case)
    signature = [tf.TensorSpec([None, 2], tf.int32), tf.TensorSpec([None, SIZE], tf.float32)]
    function = tf.function(lambda y, e: value_and_gradients(loss, y, e), input_signature=signature)
    for size in (12, 7, 1):
        labels, embeddings = batch(size)
        with_ids = np.stack([labels, np.arange(len(labels))], axis=1)[:size]
        found = function(with_ids, embeddings[:size])
        expected = value_and_gradients(twin, with_ids, embeddings[:size])
        np.testing.assert_allclose(found[0], expected[0], rtol=1e-5)
        np.testing.assert_allclose(found[1], expected[1], rtol=1e-4, atol=1e-6)


@_EACH
def test_diagnostics_change_no_state_and_describe_pairs(case: LossCase) -> None:
    loss = _warm(case)
    before = _state(loss)
    figures = loss.diagnostics(*batch(4))
    for name, value in _state(loss).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert 0.0 < figures["active_pairs"] <= 1.0
    assert len(figures["positive_distances"]) > 0
    np.testing.assert_allclose(
        figures["embedding_norm"], np.mean(np.linalg.norm(batch(4)[1], axis=1)), rtol=1e-5
    )


@_EACH
def test_fit_trains_model_and_loss(case: LossCase) -> None:
    loss = case.build()
    tf.keras.utils.set_random_seed(0)
    inputs = tf.keras.Input([SIZE])
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(SIZE, use_bias=False)(inputs))
    model.metric_loss = loss
    before = [variable.numpy() for variable in model.trainable_variables]
    assert len(before) == 1 + len(loss.trainable_variables)
    model.compile(loss=loss, optimizer=tf.keras.optimizers.SGD(0.05))
    labels, images = batch(4)
    model.fit(images, labels, batch_size=BATCH, epochs=3, verbose=0)
    for variable, start in zip(model.trainable_variables, before):
        assert not np.array_equal(variable.numpy(), start)


@pytest.mark.slow
@pytest.mark.parametrize("name", BATCHES)
@_EACH
def test_degenerate_batches_stay_finite(case: LossCase, name: str) -> None:
    loss = case.build()
    for _ in range(5 if len(BATCHES[name][0]) < BATCH else 3):
        value, gradient, of_variables = value_and_gradients(loss, *BATCHES[name])
        assert np.isfinite(value)
        assert np.isfinite(gradient).all()
        assert all(np.isfinite(item).all() for item in of_variables)
    assert all(np.isfinite(value).all() for value in _state(loss).values())


@_EACH
def test_value_is_the_sum_of_the_components_and_not_negative(case: LossCase) -> None:
    loss, twin = _warm(case), _warm(case)
    components = twin.components(*batch(3))
    value = loss(*batch(3))
    np.testing.assert_allclose(value, sum(float(component) for component in components.values()), rtol=1e-6)
    assert float(value) > 0.0
    expected = {"pair_loss" if registry.LOSSES[case.path.split("/")[-1]].pair_based else "proxy_loss"}
    added = {"ccp": "proxy_loss", "xbm": "memory_loss", "mdr": "mdr_loss"}
    assert set(components) == expected | {added[name] for name in case.path.split("/") if name in added}


_PROXY = {"num_classes": 3, "embedding_size": 4}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CrossBatchMemory(ProxyNCA(**_PROXY), 4), "ProxyNCA is none"),
        (
            lambda: CrossBatchMemory(Contrastive(proxies_per_class=1, **_PROXY), 4),
            "has 1 proxies per class and 0 shared sets; expected 0",
        ),
        (lambda: CrossBatchMemory(Contrastive(proxy_pairs=True), 4), "proxy_pairs"),
        (lambda: CrossBatchMemory(Contrastive(), 4, memory_size=0), "memory_size is 0"),
        (lambda: CrossBatchMemory(Contrastive(), 4, start_step=-1), "start_step is -1"),
        (
            lambda: CrossBatchMemory(Contrastive(miner="hard_negatives"), 4, anchors_per_block=2),
            "all anchors at once",
        ),
        (lambda: DistanceRegularization(Contrastive(), num_levels=0), "num_levels is 0"),
        (
            lambda: DistanceRegularization(Contrastive(), statistics_momentum=1.0),
            "statistics_momentum is 1.0",
        ),
        (lambda: ProxySynthesis(Contrastive()), "found Contrastive"),
        (lambda: ProxySynthesis(ProxyNCA(**_PROXY), mixing_alpha=0.0), "mixing_alpha is 0.0"),
        (lambda: ProxySynthesis(ProxyNCA(**_PROXY), synthetic_share=1.5), "synthetic_share is 1.5"),
        (lambda: ProxySynthesis(ProxyNCA(**_PROXY), mixing_rate=-0.5), "mixing_rate is -0.5"),
        (lambda: VirtualSoftmax(ProxyNCA(proxy_pairs=True, **_PROXY)), "with proxy_pairs"),
        (lambda: VirtualSoftmax(Contrastive()), "found Contrastive"),
    ],
)
def test_invalid_arguments_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
