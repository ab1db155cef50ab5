"""Wrappers inside wrappers: the valid paths, and values against loops inside loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.ccp import CCP
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.cross_batch_memory import CrossBatchMemory
from ccp_dml.losses.distance_regularization import DistanceRegularization
from ccp_dml.losses.proxy_nca import ProxyNCA
from ccp_dml.losses.proxy_synthesis import ProxySynthesis
from ccp_dml.losses.virtual_softmax import VirtualSoftmax
from tests.losses.cases import NESTED, SIZE, LossCase, batch
from tests.losses.wrapper_oracles import oracle_of

_SIZES = {"num_classes": 5, "embedding_size": SIZE}


def _paths() -> set[str]:
    """Every path that is accepted."""
    found = set()
    for count in range(len(registry.WRAPPERS) + 1):
        for names in itertools.product(itertools.permutations(registry.WRAPPERS, count), registry.LOSSES):
            path = "/".join([*names[0], names[1]])
            try:
                registry.parse(path)
            except ValueError:
                continue
            found.add(path)
    return found


def test_accepted_paths_are_those_of_the_documentation() -> None:
    pair_based = {name for name, spec in registry.LOSSES.items() if spec.pair_based}
    around_pairs = {
        "/".join(order)
        for count in range(4)
        for order in itertools.permutations(["ccp", "xbm", "mdr"], count)
    }
    expected = {f"{wrappers}/{loss}".lstrip("/") for wrappers in around_pairs for loss in pair_based}
    for loss in set(registry.LOSSES) - pair_based:
        expected |= {loss, f"mdr/{loss}"}
    for stack in ("ps/proxy_nca", "ps/proxy_anchor", "virtual_softmax/proxy_nca"):
        expected |= {stack, f"mdr/{stack}"}
    expected |= {"ps/virtual_softmax/proxy_nca", "mdr/ps/virtual_softmax/proxy_nca"}
    assert _paths() == expected


def test_each_order_of_wrappers_has_a_case() -> None:
    nested = {path.rsplit("/", 1)[0] for path in _paths() if path.count("/") > 1}
    assert {case.path.rsplit("/", 1)[0] for case in NESTED} == nested


def test_each_accepted_path_is_built() -> None:
    for path in _paths():
        loss = registry.build(path, **_SIZES)
        classes = [type(loss).__name__]
        while hasattr(loss, "base"):
            loss = loss.base
            classes.append(type(loss).__name__)
        targets = [{**registry.LOSSES, **registry.WRAPPERS}[name].target for name in path.split("/")]
        assert classes == [target.split(":")[1] for target in targets]


@pytest.mark.parametrize("case", NESTED, ids=lambda case: case.id)
def test_values_and_gradients_agree_with_loops_over_several_batches(case: LossCase) -> None:
    loss = case.build()
    oracle = oracle_of(case.path, loss, case.options)
    assert case.options.get("normalization", "lipschitz") in registry.normalizations(case.path)
    for seed in range(3):
        labels, embeddings = batch(seed)
        points, exact = tf.constant(embeddings), embeddings.astype(np.float64)
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = loss(labels, points)
        gradients = tape.gradient(value, [points, list(loss.trainable_variables)])
        oracle.observe(exact, labels)
        np.testing.assert_allclose(value, oracle.value(exact, labels), rtol=3e-5)
        direction = np.random.default_rng(seed).normal(size=exact.shape)
        values = [oracle.value(exact + sign * 1e-6 * direction, labels) for sign in (1, -1)]
        slope = (values[0] - values[1]) / 2e-6
        np.testing.assert_allclose(np.sum(gradients[0] * direction), slope, rtol=2e-3, atol=2e-5)
    for variable, gradient in zip(loss.trainable_variables, gradients[1]):
        _check_variable(variable, tf.convert_to_tensor(gradient), lambda: oracle.value(exact, labels))


def _check_variable(variable: tf.Variable, gradient: tf.Tensor, value) -> None:
    """Finite differences; of what float32 stored, as the variable is float32."""
    start = variable.numpy()
    direction = np.random.default_rng(6).normal(size=start.shape)
    values, points = [], []
    for sign in (1, -1):
        variable.assign(start + sign * 1e-4 * direction)
        points.append(variable.numpy().astype(np.float64))
        values.append(value())
    variable.assign(start)
    expected = np.sum(gradient * (points[0] - points[1]))
    np.testing.assert_allclose(expected, values[0] - values[1], rtol=5e-3, atol=2e-8)


def test_names_of_the_components() -> None:
    labels, embeddings = batch(1)
    options = {"memory_size": 10, "start_step": 0, "normalization": "unit"}
    for path in ("mdr/ccp/xbm/contrastive", "xbm/mdr/ccp/contrastive"):
        components = registry.build(path, **_SIZES, options=options).components(labels, embeddings)
        assert set(components) == {"pair_loss", "memory_loss", "proxy_loss", "mdr_loss"}


def test_wrappers_around_ccp_have_its_proxies() -> None:
    loss = registry.build("mdr/xbm/ccp/contrastive", **_SIZES)
    assert loss.proxies is loss.base.proxies is loss.base.base.proxies


def test_the_outermost_wrapper_takes_an_option_of_several() -> None:
    options = {"pair_weight": 0.5, "mine_pairs": True, "memory_weight": 0.7}
    loss = registry.build("ccp/xbm/contrastive", **_SIZES, options=options)
    assert (loss.pair_weight, loss.base.pair_weight) == (0.5, 1.0)
    assert (loss.mine_pairs, loss.base.mine_pairs) == (False, True)
    with pytest.raises(ValueError, match="takes no option pair_normalization"):
        registry.build("ccp/xbm/contrastive", **_SIZES, options={"pair_normalization": "unit"})


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("mdr/ccp/mdr/contrastive", "mdr is inside mdr"),
        ("ccp/mdr/proxy_nca", "ccp wraps pair-based losses only .*ccp, xbm, mdr around one of them"),
        ("xbm/ps/proxy_nca", "xbm wraps pair-based losses only"),
        ("ps/mdr/proxy_nca", "ps directly wraps these only: proxy_nca, proxy_anchor, virtual_softmax"),
        ("virtual_softmax/ps/proxy_nca", "virtual_softmax directly wraps these only: proxy_nca"),
        ("ps/virtual_softmax/proxy_anchor", "virtual_softmax directly wraps these only: proxy_nca"),
    ],
)
def test_invalid_paths_are_refused_with_a_reason(path: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        registry.parse(path)


def _memory(base: MetricLoss | None = None, **options: bool) -> CrossBatchMemory:
    return CrossBatchMemory(base or Contrastive(), SIZE, **options)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: CCP(CCP(Contrastive(), 5, SIZE), 5, SIZE), "CCP is inside CCP"),
        (lambda: _memory(DistanceRegularization(_memory())), "CrossBatchMemory is inside CrossBatchMemory"),
        (lambda: CCP(DistanceRegularization(ProxyNCA(**_SIZES)), 5, SIZE), "ProxyNCA is none"),
        (lambda: _memory(ProxySynthesis(ProxyNCA(**_SIZES))), "ProxyNCA is none"),
        (
            lambda: CCP(_memory(), 5, SIZE, mine_pairs=True),
            "act on the pairs of the batch, which CrossBatchMemory",
        ),
        (
            lambda: CCP(_memory(), 5, SIZE, pair_normalization="unit"),
            "act on the pairs of the batch, which CrossBatchMemory",
        ),
        (lambda: _memory(DistanceRegularization(Contrastive()), mine_pairs=True), "left out"),
        (lambda: VirtualSoftmax(ProxySynthesis(ProxyNCA(**_SIZES))), "found ProxySynthesis"),
        (lambda: ProxySynthesis(DistanceRegularization(ProxyNCA(**_SIZES))), "found DistanceRegularization"),
        (lambda: DistanceRegularization(tf.keras.losses.MeanSquaredError()), "MeanSquaredError is none"),
    ],
)
def test_invalid_nesting_is_refused_in_python(make, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        make()


@pytest.mark.parametrize(
    ("path", "kinds"),
    [
        ("ccp/contrastive", ("lipschitz", "unit", "l1", "none")),
        ("mdr/contrastive", ("none", "unit")),
        ("ccp/mdr/contrastive", ("none", "unit")),
        ("mdr/xbm/ccp/contrastive", ("unit",)),
    ],
)
def test_normalizations_of_a_path(path: str, kinds: tuple[str, ...]) -> None:
    assert registry.normalizations(path) == kinds
