from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.training.controllers import EarlyStopping
from ccp_dml.training.warm_up import WarmUp


@pytest.mark.parametrize("lower_is_better", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_best_of_the_run_and_when_to_stop(seed, lower_is_better):
    scores = np.random.default_rng(seed).integers(0, 8, size=30).astype(float)
    weight = tf.Variable(-1.0)
    stopping = EarlyStopping([weight], patience=4, stop_at_min=lower_is_better)
    sign = -1 if lower_is_better else 1
    for epoch, score in enumerate(scores):
        weight.assign(float(epoch))
        stopped = stopping.update(score, epoch)
        seen = sign * scores[: epoch + 1]
        best = int(np.argmax(seen))
        assert int(stopping.best_epoch) == best
        assert float(stopping.best_score) == scores[best]
        assert stopped == (epoch - best >= 4)
        if stopped:
            break
    assert stopped
    weight.assign(-5.0)
    assert stopping.restore_best()
    assert float(weight) == best


def test_nan_is_never_better():
    weight = tf.Variable(0.0)
    stopping = EarlyStopping([weight], patience=2)
    assert not stopping.update(float("nan"), 0)
    assert not stopping.restore_best()
    assert not stopping.update(0.1, 1)
    assert not stopping.update(float("nan"), 2)
    assert stopping.update(float("nan"), 3)
    assert int(stopping.best_epoch) == 1


def test_small_improvements_do_not_count():
    stopping = EarlyStopping([], patience=1, min_delta=0.1)
    assert not stopping.update(0.5, 0)
    assert stopping.update(0.55, 1)


def test_without_patience_it_only_remembers():
    stopping = EarlyStopping([], patience=None)
    assert not any(stopping.update(-epoch, epoch) for epoch in range(50))
    assert int(stopping.best_epoch) == 0


@pytest.mark.parametrize("options", [{"patience": 0}, {"patience": 1, "min_delta": -0.1}])
def test_bad_numbers(options):
    with pytest.raises(ValueError, match="early stopping"):
        EarlyStopping([], **options)


def test_warm_up_checks():
    weight = tf.Variable(0.0)
    with pytest.raises(ValueError, match="negative"):
        WarmUp(-1)
    with pytest.raises(ValueError, match="positive"):
        WarmUp(1, learning_rate_multiplier=0.0)
    with pytest.raises(ValueError, match="frozen"):
        WarmUp(1, frozen=[weight]).trained([weight])
