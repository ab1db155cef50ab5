"""The training loop: order of events, equivalence to a loop by hand, warm-up, best weights."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.training.controllers import ExponentialDecay
from ccp_dml.training.finite import Diverged
from ccp_dml.training.gradients import make_transforms
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import GradientOptions, OptimizerOptions, TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from tests.training import tiny


class Calls(tf.keras.callbacks.Callback):
    """Records the calls of its methods."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self.logs: list[dict] = []

    def on_train_begin(self, logs=None):
        self.calls.append(("train_begin",))

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(("epoch_begin", epoch))

    def on_train_batch_begin(self, batch, logs=None):
        self.calls.append(("batch_begin", batch))

    def on_train_batch_end(self, batch, logs=None):
        self.calls.append(("batch_end", batch))

    def on_test_begin(self, logs=None):
        self.calls.append(("test_begin",))

    def on_test_end(self, logs=None):
        self.calls.append(("test_end", "val_map_at_r" in logs))

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(("epoch_end", epoch))
        self.logs.append(dict(logs))

    def on_train_end(self, logs=None):
        self.calls.append(("train_end",))


def test_the_order_of_callbacks_and_the_entries_of_the_logs():
    calls = Calls()
    history = tiny.trainer(callbacks=[calls], steps_per_epoch=4).fit(2)
    epoch = [("batch_begin", 0), ("batch_end", 2), ("batch_begin", 3), ("batch_end", 3)]
    expected = [("train_begin",)]
    for number in (0, 1):
        validation = [("test_begin",), ("test_end", True)]
        expected += [("epoch_begin", number), *epoch, *validation, ("epoch_end", number)]
    assert calls.calls == [*expected, ("train_end",)]
    names = "loss pair_loss proxy_loss gradient_norm embedding_norm images_per_second data_wait_share step"
    names += " learning_rate active_pairs problem_instance proximal_coefficient val_map_at_r proxy_staleness"
    assert set(calls.logs[0]) == set(names.split())
    assert calls.logs[0]["loss"] == pytest.approx(calls.logs[0]["pair_loss"] + calls.logs[0]["proxy_loss"])
    assert history["loss"] == [logs["loss"] for logs in calls.logs]
    assert [logs["step"] for logs in calls.logs] == [4, 8]
    assert [logs["proximal_coefficient"] for logs in calls.logs] == [0.0, 0.0]


def test_callbacks_of_the_validation_see_the_proxies_that_were_trained():
    class Watch(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.trained = run.loss.proxies.embeddings.numpy()

        def on_test_end(self, logs=None):
            np.testing.assert_array_equal(run.loss.proxies.embeddings, self.trained)

        def on_epoch_end(self, epoch, logs=None):
            assert not np.allclose(run.loss.proxies.embeddings, self.trained)

    watch = Watch()
    run = tiny.trainer(callbacks=[watch], projections={"ccp_reset_rule": "fixed"})
    run.fit(2)


def _by_hand(steps: int, rate: float) -> tuple[list[np.ndarray], list[float]]:
    """Trains by plain gradient descent; returns weights and losses."""
    network, loss = tiny.model(), tiny.ccp_loss()
    variables = [*network.trainable_variables, *loss.trainable_variables]
    losses = []
    for images, labels in tiny.batches(0).take(steps):
        with tf.GradientTape() as tape:
            value = loss(labels, network(images, training=True))
        for gradient, variable in zip(tape.gradient(value, variables), variables):
            multiplier = 3.0 if variable is loss.proxies.embeddings else 1.0
            variable.assign_sub(rate * multiplier * gradient)
        losses.append(float(value))
    return [v.numpy() for v in [*network.variables, *loss.trainable_variables]], losses


@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_equals_gradient_descent_by_hand(jit_compile):
    run = tiny.trainer(
        optimizer="sgd",
        plain=True,
        projections={"ccp_random_init": True, "ccp_patience": 100},
        validate=lambda: {"map_at_r": 0.0},
        jit_compile=jit_compile,
    )
    history = run.fit(2)
    expected, losses = _by_hand(8, 0.02)
    for actual, value in zip(tiny.values(run), expected):
        np.testing.assert_allclose(actual, value, rtol=2e-5, atol=2e-6)
    assert history["loss"] == pytest.approx([np.mean(losses[:4]), np.mean(losses[4:])], rel=1e-5)


def test_chunks_of_any_size_are_traced_once():
    run = tiny.trainer(steps_per_epoch=5, chunk_size=3)
    run.fit(4)
    assert run.trace_count == 1
    assert int(run.step) == 20


def test_the_size_of_chunks_does_not_change_the_result():
    whole, single = tiny.trainer(chunk_size=100), tiny.trainer(chunk_size=1)
    for run in (whole, single):
        run.fit(3)
    for a, b in zip(tiny.values(whole), tiny.values(single)):
        np.testing.assert_array_equal(a, b)


def test_projections_keep_the_weights_that_the_score_was_measured_on():
    run = tiny.trainer(projections={"ccp_patience": 100})
    network = run.model
    scores = iter([0.1, 0.9, 0.2])
    at_validation = []

    def validate():
        at_validation.append(network.get_layer("head").kernel.numpy())
        return {"map_at_r": next(scores)}

    run._validate = validate
    run.fit(3)
    head = network.trainable_variables.index(network.get_layer("head").kernel)
    kept = run.state["alternating_projections"].best_weights[head].numpy()
    np.testing.assert_array_equal(kept, at_validation[1])


@pytest.mark.parametrize("rule", ["patience", "fixed"])
def test_the_best_weights_are_restored_with_their_proxies_even_if_new_ones_were_chosen(rule):
    run = tiny.trainer(patience=2, projections={"ccp_reset_rule": rule})
    scores = iter([0.1, 0.9, 0.3, 0.2, 0.95])
    seen = []

    def validate():
        seen.append(tiny.values(run))
        return {"map_at_r": next(scores)}

    run._validate = validate
    history = run.fit(10)
    assert history["val_map_at_r"] == [0.1, 0.9, 0.3, 0.2]
    assert run.best_epoch == 1
    for actual, best in zip(tiny.values(run), seen[1]):
        np.testing.assert_array_equal(actual, best)


def test_the_warm_up_freezes_the_backbone_and_scales_the_rate():
    kernels, heads, rates, real_rates = [], [], [], []

    class Watch(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernels.append(self.model.get_layer("backbone").kernel.numpy())
            heads.append(self.model.get_layer("head").kernel.numpy())
            rates.append(logs["learning_rate"])
            real_rates.append(float(run.state["optimizer"].optimizers[1].learning_rate))

    options = OptimizerOptions(learning_rate=0.02, decay_rate=0.5, decay_epochs=0.25)
    schedule = ExponentialDecay(options, steps_per_epoch=4)
    run = tiny.trainer(
        callbacks=[Watch()], warm_up=(2, 0.1), schedule=schedule, projections={"ccp_patience": 100}
    )
    start = run.model.get_layer("backbone").kernel.numpy()
    run.fit(3)
    np.testing.assert_array_equal(kernels[0], start)
    np.testing.assert_array_equal(kernels[1], start)
    assert not np.array_equal(kernels[2], start)
    assert not np.array_equal(heads[0], heads[1])
    # The schedule begins after the warm-up; the last of its four steps has the exponent 3.
    assert real_rates == pytest.approx([0.002, 0.002, 0.02 / 8])
    assert rates == pytest.approx(real_rates)
    # During the warm-up, the frozen group has no updates.
    assert [int(o.iterations) for o in run.state["optimizer"].optimizers] == [4, 12, 12]
    assert run.trace_count == 2
    # Proxies were chosen at the start and after the warm-up, whose validations do not count.
    assert int(run.state["alternating_projections"].chooser.draws) == 8
    assert int(run.state["alternating_projections"].validations) == 1


def test_a_warm_up_may_end_inside_an_epoch():
    kernels, rates, begun = [], [], []

    class Watch(tf.keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernels.append((int(run.step), self.model.get_layer("backbone").kernel.numpy()))
            rates.append(float(run.state["optimizer"].optimizers[1].learning_rate))
            begun.append(int(run.state["alternating_projections"].chooser.draws))

    # The warm-up has six steps, an epoch four; a chunk of three must not go beyond its end.
    run = tiny.trainer(callbacks=[Watch()], warm_up=(1.5, 0.1), projections={"ccp_patience": 100})
    start = run.model.get_layer("backbone").kernel.numpy()
    run.fit(3)
    assert [step for step, _ in kernels] == [3, 4, 6, 8, 11, 12]
    assert [np.array_equal(kernel, start) for _, kernel in kernels] == [True] * 3 + [False] * 3
    assert rates == pytest.approx([0.002] * 3 + [0.02] * 3)
    assert begun == [4] * 3 + [8] * 3
    # The score of the second epoch counts: it was measured after the warm-up.
    assert int(run.state["alternating_projections"].validations) == 2


def test_variables_without_a_gradient_do_not_change():
    class WithUnused(tf.keras.Model):
        def __init__(self):
            super().__init__()
            self.used, self.unused = tf.keras.layers.Dense(tiny.SIZE), tf.keras.layers.Dense(2)
            self.used.build([None, tiny.INPUT])
            self.unused.build([None, tiny.INPUT])

        def call(self, inputs, training=False):
            return self.used(inputs)

    run = tiny.trainer()
    network = WithUnused()
    before = network.unused.kernel.numpy()
    variables = [*network.trainable_variables, *run.loss.trainable_variables]
    groups = OptimizerGroups(lambda rate: make_optimizer("adam", rate), [VariableGroup(variables)], 0.1)
    options = GradientOptions(weight_decay=0.1, clip_norm=1.0, clip_value=0.5)
    transforms = make_transforms(options, network.trainable_variables)
    step = TrainStep(network, run.loss, groups, transforms=transforms)
    Trainer(step, tiny.batches, TrainingOptions(steps_per_epoch=2)).fit(1)
    np.testing.assert_array_equal(network.unused.kernel.numpy(), before)


def test_keras_callbacks_work_unchanged(tmp_path):
    keras = tf.keras.callbacks
    rates = itertools.count(1)
    run = tiny.trainer(
        schedule=None,
        callbacks=[
            keras.TensorBoard(tmp_path / "board"),
            keras.CSVLogger(tmp_path / "log.csv"),
            keras.ModelCheckpoint(str(tmp_path / "{epoch}.h5"), save_weights_only=True),
            keras.LearningRateScheduler(lambda epoch: 0.001 * next(rates)),
            keras.EarlyStopping("loss", patience=0, min_delta=1e9),
            keras.TerminateOnNaN(),
        ],
    )
    history = run.fit(9)
    assert len(history["loss"]) == 2  # stopped by the early stopping of Keras
    assert history["learning_rate"] == pytest.approx([0.001, 0.002])
    assert (tmp_path / "1.h5").exists()
    assert list((tmp_path / "board").rglob("*tfevents*"))
    assert run.model.optimizer is None  # removed from the model at the end


def test_projections_can_judge_after_every_step():
    options = {"ccp_step_at_batch": True, "ccp_min_iterations": 3}
    run = tiny.trainer(projections=options, chunk_size=10, steps_per_epoch=12)
    run.fit(1)
    assert int(run.state["alternating_projections"].instance) >= 1


def test_a_step_that_is_not_finite_is_an_error():
    run = tiny.trainer(optimizer="sgd", plain=True)
    run.state["optimizer"].learning_rate.assign(float("inf"))
    with pytest.raises(Diverged, match="step"):
        run.fit(3)


def test_an_unknown_monitor_is_an_error_that_names_the_logs():
    run = tiny.trainer(validate=lambda: {"recall": 0.5})
    with pytest.raises(ValueError, match=r"'map_at_r' is not among .*val_recall"):
        run.fit(1)


@pytest.mark.parametrize("name", ["steps_per_epoch", "chunk_size"])
def test_options_are_checked(name):
    with pytest.raises(ValueError, match=name):
        tiny.trainer(**{name: 0})


def test_float16_scales_the_loss_and_skips_overflows():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        run = tiny.trainer()
        history = run.fit(2)
        assert np.isfinite(history["loss"]).all()
        assert float(run.state["loss_scale"].scale) >= 1
        assert all(v.dtype == np.float32 for v in tiny.values(run))
        # With so large a scale every gradient overflows: no weight may change, and the scale must fall.
        run.state["loss_scale"].scale.assign(3e38)
        before = [weight.numpy() for weight in run.model.trainable_variables]
        run.fit(3)
        assert float(run.state["loss_scale"].scale) == pytest.approx(3e38 / 2**4)
        for weight, value in zip(run.model.trainable_variables, before):
            np.testing.assert_array_equal(weight, value)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
