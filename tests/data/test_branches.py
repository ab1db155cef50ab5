from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.data.images import either


def halved_or_tripled(value: tf.Tensor) -> tf.Tensor:
    return either(value % 2 == 0, lambda even: even // 2, lambda odd: 3 * odd + 1, value)


@pytest.mark.parametrize("way", ["eager", "function", "dataset"])
def test_one_branch_is_taken(way: str) -> None:
    run = halved_or_tripled if way == "eager" else tf.function(halved_or_tripled)
    if way == "dataset":
        found = list(tf.data.Dataset.range(4).map(halved_or_tripled).as_numpy_iterator())
    else:
        found = [int(run(tf.constant(number))) for number in range(4)]
    assert found == [0, 4, 1, 10]


def test_the_other_branch_is_not_run() -> None:
    def checked(value: tf.Tensor) -> tf.Tensor:
        return either(
            value > 0,
            lambda positive: positive,
            lambda other: tf.raw_ops.CheckNumerics(tensor=other / 0.0, message="run"),
            value,
        )

    assert float(tf.function(checked)(tf.constant(2.0))) == 2.0
    with pytest.raises(tf.errors.InvalidArgumentError):
        tf.function(checked)(tf.constant(-2.0))
