"""The length of the warm-up and the variables that it trains."""

from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.training.controllers import WarmUp


def test_epochs_become_steps():
    assert [WarmUp(epochs).steps(4) for epochs in (0, 0.01, 0.5, 2)] == [0, 1, 2, 8]


def test_some_variables_have_to_be_trained():
    weight = tf.Variable(0.0)
    with pytest.raises(ValueError, match="frozen"):
        WarmUp(1, frozen=[weight]).trained([weight])
