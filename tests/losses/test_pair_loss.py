"""The base class of pair losses: a formula in a subclass, proxies that several losses share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.ccp import CCP
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.cross_batch_memory import CrossBatchMemory
from ccp_dml.losses.multi_similarity import MultiSimilarity
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.soft_triple import SoftTriple
from ccp_dml.models.proxies import Proxies
from tests.losses import oracles
from tests.losses.cases import NUM_CLASSES, SIZE, batch

_SIZES = {"num_classes": NUM_CLASSES, "embedding_size": SIZE}


@tf.keras.utils.register_keras_serializable("tests")
class SquaredDistance(PairLoss):
    """The example in the documentation of `pair_loss`."""

    def __init__(self, push: float = 0.1, **options: Any) -> None:
        super().__init__(**options)
        self.push = push

    def sums(self, pairs: Pairs) -> list[tf.Tensor]:
        signs = tf.where(pairs.positives, 1.0, tf.where(pairs.negatives, -self.push, 0.0))
        return [tf.reduce_sum(signs * tf.square(pairs.distances)), pairs.anchor_count]


def _squared_distance(embeddings: np.ndarray, labels: np.ndarray, *proxies: np.ndarray) -> float:
    pairs = oracles.listed_pairs(embeddings, labels, *proxies)
    total = 0.0
    for row, positives, negatives in zip(pairs.distances, pairs.positives, pairs.negatives):
        total += sum(row[j] ** 2 for j in positives) - 0.1 * sum(row[j] ** 2 for j in negatives)
    return total / len(pairs.distances)


def test_a_subclass_with_a_formula_is_complete() -> None:
    labels, embeddings = batch(3)
    loss = SquaredDistance()
    np.testing.assert_allclose(loss(labels, embeddings), _squared_distance(embeddings, labels), rtol=1e-5)
    copy = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()


def test_a_subclass_with_a_formula_can_be_wrapped() -> None:
    labels, embeddings = batch(3)
    ccp = CCP(SquaredDistance(), **_SIZES, proxies_per_class=2)
    proxies, proxy_labels = ccp.proxies.embeddings.numpy(), ccp.proxies.labels.numpy()
    np.testing.assert_allclose(
        ccp.components(labels, embeddings)["proxy_loss"],
        _squared_distance(embeddings, labels, proxies, proxy_labels),
        rtol=1e-5,
    )
    memory = CrossBatchMemory(SquaredDistance(), SIZE, len(labels), start_step=0, anchors_per_block=5)
    components = memory.components(labels, embeddings)
    # The memory holds this batch, and the copy of a sample is at distance 0.
    np.testing.assert_allclose(components["memory_loss"], components["pair_loss"], rtol=1e-5)


def test_several_sets_of_proxies_act_as_one() -> None:
    shared = [Proxies(NUM_CLASSES, 1, SIZE), Proxies(NUM_CLASSES, 2, SIZE)]
    several = MultiSimilarity(proxies_per_class=1, shared_proxies=shared, **_SIZES)
    one = MultiSimilarity(proxies_per_class=4, **_SIZES)
    sets = [several.proxies, *shared]
    one.proxies.embeddings.assign(tf.concat([proxies.embeddings for proxies in sets], axis=0))
    labels, embeddings = batch(1)
    np.testing.assert_allclose(several(labels, embeddings), one(labels, embeddings), rtol=1e-6)
    assert list(several.components(labels, embeddings)) == ["proxy_loss"]


def test_two_losses_train_the_same_proxies() -> None:
    owner = MultiSimilarity(proxies_per_class=2, **_SIZES)
    guest = Contrastive(0.0, 1.5, shared_proxies=[owner.proxies])
    assert guest.proxies is None
    [variable] = guest.trainable_variables
    assert variable is owner.proxies.embeddings
    labels, embeddings = batch(2)
    with tf.GradientTape() as tape:
        value = guest(labels, embeddings)
    assert float(tf.norm(tape.gradient(value, variable))) > 0.0


def test_configuration_keeps_the_sizes_of_shared_sets() -> None:
    loss = Contrastive(shared_proxies=[Proxies(NUM_CLASSES, 3, SIZE)])
    copy = tf.keras.losses.deserialize(tf.keras.losses.serialize(loss))
    [proxies] = copy.shared_proxies
    assert proxies.embeddings.shape == [3 * NUM_CLASSES, SIZE]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (SoftTriple, _SIZES, "no shared_proxies"),
        (Contrastive, {"references_per_batch": 4}, "1 shared sets"),
    ],
)
def test_options_that_contradict_shared_proxies(
    kind: type[PairLoss], options: dict[str, int], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(shared_proxies=[Proxies(NUM_CLASSES, 1, SIZE)], **options)
