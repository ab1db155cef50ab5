"""The base class of pair losses: proxies that several losses share, and sets of proxies."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.losses.multi_similarity import MultiSimilarity
from ccp_dml.losses.pair_loss import PairLoss
from ccp_dml.losses.soft_triple import SoftTriple
from ccp_dml.models.proxies import Proxies
from tests.losses.cases import NUM_CLASSES, SIZE, batch

_SIZES = {"num_classes": NUM_CLASSES, "embedding_size": SIZE}


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
