"""Class proxies: layout, reset, configuration, checkpoints."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.models.proxies import Proxies

C, K, D = 5, 3, 4


def test_reset_writes_the_kth_proxy_of_class_c_to_row_k_times_classes_plus_c():
    proxies = Proxies(C, K, D)
    new = np.random.default_rng(0).normal(size=(K, C, D)).astype(np.float32)
    proxies.reset(new)
    for k in range(K):
        for c in range(C):
            np.testing.assert_array_equal(proxies.embeddings[k * C + c], new[k, c])
            assert proxies.labels[k * C + c] == c
    np.testing.assert_array_equal(proxies.by_class, new)


def test_reset_works_inside_a_function_and_keeps_the_variable():
    proxies = Proxies(C, K, D)
    variable = proxies.embeddings
    tf.function(proxies.reset)(tf.ones([K, C, D]))
    assert proxies.embeddings is variable
    np.testing.assert_array_equal(variable, np.ones((C * K, D), np.float32))


def test_reset_refuses_another_order_of_the_axes():
    with pytest.raises(ValueError, match=r"\[K, C, D\] = \[3, 5, 4\]"):
        Proxies(C, K, D).reset(np.zeros((C, K, D), np.float32))


def test_the_variable_exists_at_once_and_is_the_only_one():
    proxies = Proxies(C, K, D)
    assert len(proxies.trainable_variables) == 1
    assert proxies.trainable_variables[0] is proxies.embeddings
    assert not proxies.non_trainable_variables
    assert proxies.embeddings.shape == (C * K, D)
    assert proxies.labels.dtype == tf.int32


def test_proxies_stay_in_float32_in_half_precision(half_precision):
    proxies = Proxies(C, K, D)
    assert proxies.embeddings.dtype == tf.float32
    assert proxies.by_class.dtype == tf.float32


def test_equal_seeds_give_equal_proxies():
    def start(seed: int) -> np.ndarray:
        return Proxies(C, K, D, initializer=tf.keras.initializers.HeNormal(seed=seed)).embeddings.numpy()

    np.testing.assert_array_equal(start(1), start(1))
    assert np.abs(start(1) - start(2)).max() > 0.01


def test_config_round_trip():
    proxies = Proxies(
        C, K, D, learning_rate_multiplier=7.0, initializer=tf.keras.initializers.Constant(0.5), name="p"
    )
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(proxies))
    assert again.get_config() == proxies.get_config()
    assert (again.num_classes, again.proxies_per_class, again.embedding_size) == (C, K, D)
    assert again.learning_rate_multiplier == 7.0
    np.testing.assert_array_equal(again.embeddings, np.full((C * K, D), 0.5, np.float32))


def test_proxies_are_restored_from_a_checkpoint(tmp_path):
    proxies, others = Proxies(C, K, D), Proxies(C, K, D)
    path = tf.train.Checkpoint(proxies=proxies).write(str(tmp_path / "checkpoint"))
    tf.train.Checkpoint(proxies=others).read(path).assert_consumed()
    np.testing.assert_array_equal(others.embeddings, proxies.embeddings)


@pytest.mark.parametrize(
    "sizes, named",
    [((0, 1, 1), "num_classes"), ((1, 0, 1), "proxies_per_class"), ((1, 1, 0), "embedding_size")],
)
def test_sizes_below_one_are_refused(sizes, named):
    with pytest.raises(ValueError, match=f"{named} of the proxies is 0"):
        Proxies(*sizes)


def test_negative_learning_rate_multipliers_are_refused():
    with pytest.raises(ValueError, match="learning_rate_multiplier"):
        Proxies(1, 1, 1, learning_rate_multiplier=-1.0)
