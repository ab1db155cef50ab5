"""CCP: the loss on the batch, and on the batch against the proxies."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.ccp import CCP
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.proxy_nca import ProxyNCA
from tests.losses.cases import NUM_CLASSES, SIZE, batch


def test_components_are_the_base_loss_on_the_batch_and_against_the_proxies() -> None:
    base = Contrastive(0.1, 1.2, weight=0.5)
    loss = CCP(base, NUM_CLASSES, SIZE, proxies_per_class=2, pair_weight=0.3, proxy_weight=0.8)
    labels, embeddings = batch(0)
    components = loss.components(labels, embeddings)
    np.testing.assert_allclose(components["pair_loss"], 0.3 * base(labels, embeddings), rtol=1e-6)
    with_proxies = Contrastive(
        0.1, 1.2, weight=0.5, proxies_per_class=2, num_classes=NUM_CLASSES, embedding_size=SIZE
    )
    with_proxies.proxies.embeddings.assign(loss.proxies.embeddings)
    np.testing.assert_allclose(components["proxy_loss"], 0.8 * with_proxies(labels, embeddings), rtol=1e-6)


def test_pair_normalization_replaces_the_normalization_of_the_base_loss() -> None:
    labels, embeddings = batch(1)
    base = Contrastive(0.1, 1.2, normalization="unit")
    default = CCP(base, NUM_CLASSES, SIZE, pair_weight=1.0).components(labels, embeddings)["pair_loss"]
    np.testing.assert_allclose(default, base(labels, embeddings), rtol=1e-6)
    lipschitz = CCP(base, NUM_CLASSES, SIZE, pair_weight=1.0, pair_normalization="lipschitz")
    expected = Contrastive(0.1, 1.2, normalization="lipschitz")(labels, embeddings)
    np.testing.assert_allclose(lipschitz.components(labels, embeddings)["pair_loss"], expected, rtol=1e-6)
    assert not np.isclose(expected, default)


def test_miner_acts_on_the_pairs_of_the_batch_with_mine_pairs_only() -> None:
    labels, embeddings = batch(2)
    plain = Contrastive(0.1, 1.2, average="all")
    mined = Contrastive(0.1, 1.2, average="all", miner="hard_negatives")
    for mine_pairs, expected in ((False, plain), (True, mined)):
        loss = CCP(mined, NUM_CLASSES, SIZE, pair_weight=1.0, mine_pairs=mine_pairs)
        np.testing.assert_allclose(
            loss.components(labels, embeddings)["pair_loss"], expected(labels, embeddings), rtol=1e-6
        )
    assert not np.isclose(plain(labels, embeddings), mined(labels, embeddings))


def test_value_follows_a_reset_of_the_proxies_inside_a_traced_step() -> None:
    loss = CCP(Contrastive(0.0, 0.0), 2, 2, proxies_per_class=1, pair_weight=0.0)
    step = tf.function(lambda y, e: loss(y, e))
    embeddings = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    loss.proxies.reset(tf.constant([[[1.0, 0.0], [0.0, 1.0]]]))
    assert float(step(tf.constant([0, 1]), embeddings)) == 0.0
    loss.proxies.reset(tf.constant([[[0.0, 0.0], [0.0, 0.0]]]))
    np.testing.assert_allclose(step(tf.constant([0, 1]), embeddings), 1.0, rtol=1e-6)


def test_proxies_have_the_learning_rate_multiplier() -> None:
    loss = CCP(Contrastive(), 3, 4, proxy_learning_rate_multiplier=100.0)
    assert loss.proxies.learning_rate_multiplier == 100.0


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (ProxyNCA(num_classes=3, embedding_size=4), "ProxyNCA is none"),
        (
            Contrastive(num_classes=3, embedding_size=4, proxies_per_class=1),
            "has 1 proxies per class and 0 shared sets; expected 0",
        ),
    ],
)
def test_losses_with_proxies_are_refused(base: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CCP(base, 3, 4)
