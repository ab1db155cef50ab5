"""Training of a linear model with CCP by the trainer, step by step and epoch by epoch."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.gradients import Gradients, ProximalTerm, make_transforms
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import GradientOptions, TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from tests.parity.adapters.losses import build_loss, loss_name
from tests.parity.comparison import Case, Comparison

_EXACT = ("step", "steps_wo_improvement", "resets")


def compare(case: Case) -> list[Comparison]:
    """Compares losses, raw gradients, weights and proxies of every step, and CCP's state of every epoch."""
    config, arrays = case.config, case.arrays
    weights = {"pair_weight": config["ccp"]["loss_weight"], "proxy_weight": config["ccp"]["ccp_weight"]}
    loss = build_loss(f"ccp/{loss_name(config)}", case, {"pair_normalization": "lipschitz", **weights})
    model = _linear_model(arrays["kernel_initial"])
    kernel, proxies = model.trainable_variables[0], loss.proxies
    projections = _projections(config["ccp"], kernel, proxies, arrays["pool_images"])
    raw = _RawGradients([kernel, proxies.embeddings])
    transforms = make_transforms(
        GradientOptions(
            weight_decay=config["weight_decay"],
            clip_norm=config["clipnorm"],
            clip_value=config["clipvalue"],
        ),
        [kernel],
        proximal=ProximalTerm([kernel], projections.anchors, projections.proximal_coefficient),
    )
    adam = {name: config[name] for name in ("beta_1", "beta_2", "epsilon")}
    recorder = _Recorder(kernel, proxies.embeddings, raw, projections)
    scores = iter(arrays["monitored"])
    optimizer = OptimizerGroups(
        functools.partial(make_optimizer, "adam", **adam),
        [VariableGroup([kernel]), VariableGroup([proxies.embeddings], config["ccp"]["proxy_lrm"])],
        config["learning_rate"],
    )
    batches = tf.data.Dataset.from_tensor_slices((arrays["x"], arrays["labels"]))
    trainer = Trainer(
        TrainStep(model, loss, optimizer, transforms=[raw, *transforms]),
        batches.skip,
        TrainingOptions(steps_per_epoch=config["steps_per_epoch"], chunk_size=1),
        validate=lambda: {config["ccp"]["monitor_to_stop"]: float(next(scores))},
        controllers=[projections],
        callbacks=[recorder],
    )
    trainer.fit(config["epochs"])
    return [
        Comparison(name, np.stack(values), arrays[name], **_tolerance(name))
        for name, values in recorder.recorded.items()
    ]


def _tolerance(name: str) -> dict[str, float]:
    if name in _EXACT:
        return {"rtol": 0.0}
    return {"rtol": 1e-5} if name in ("loss", "best_monitored", "lam") else {"rtol": 1e-4, "atol": 1e-6}


def _linear_model(kernel: np.ndarray) -> tf.keras.Model:
    model = tf.keras.Sequential([tf.keras.layers.Dense(kernel.shape[1], use_bias=False)])
    model.build([None, kernel.shape[0]])
    model.set_weights([kernel])
    return model


def _projections(
    ccp: dict[str, Any], kernel: tf.Variable, proxies: Any, images: np.ndarray
) -> AlternatingProjections:
    rows, classes, size = images.shape

    def draws(first: int, count: int) -> np.ndarray:
        return (np.arange(first, first + count) % rows)[:, None] * classes + np.arange(classes)

    def embed(indices: np.ndarray) -> np.ndarray:
        return images.reshape(-1, size)[indices] @ kernel.numpy()

    return AlternatingProjections(
        [kernel],
        proxies,
        ProxyPool(draws, embed),
        ProjectionOptions(
            ccp_lambda=ccp["regularization_coeff"],
            ccp_lambda_decay=ccp["coeff_decay"],
            ccp_reset_rule="patience" if ccp["early_stopping"] else "fixed",
            ccp_patience=ccp["early_stopping_patience"],
            ccp_min_iterations=ccp["min_iterations"],
            pool_size=ccp["representative_pool_size"],
            ccp_random_init=ccp["random_init"],
            ccp_normalized_embeddings=ccp["normalized_embeddings"],
            ccp_use_representative_proxy=ccp["use_representative_proxy"],
            ccp_perturb_noise=ccp["perturb_noise"],
            ccp_step_at_batch=ccp["step_at_batch"],
            ccp_monitor=ccp["monitor_to_stop"],
            ccp_stop_at_min=ccp["stop_at_min"],
        ),
    )


class _RawGradients:
    """A transform that keeps the gradients and returns them unchanged."""

    def __init__(self, variables: list[tf.Variable]) -> None:
        self.seen = {variable.ref(): tf.Variable(tf.zeros_like(variable)) for variable in variables}

    def __call__(self, gradients: Gradients, variables: list[tf.Variable]) -> Gradients:
        for gradient, variable in zip(gradients, variables):
            self.seen[variable.ref()].assign(gradient)
        return gradients


class _Recorder(tf.keras.callbacks.Callback):
    """Records the same values as the golden file, by name."""

    def __init__(
        self,
        kernel: tf.Variable,
        proxies: tf.Variable,
        raw: _RawGradients,
        projections: AlternatingProjections,
    ) -> None:
        super().__init__()
        self._kernel, self._proxies, self._raw, self._projections = kernel, proxies, raw, projections
        self.recorded: dict[str, list[np.ndarray]] = {}

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._sum = 0.0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.recorded:
            self.recorded["proxies_after_begin"] = list(self._proxies.numpy())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = logs["loss"] * (batch + 1) - self._sum
        self._sum += loss
        self._record(
            loss=loss,
            raw_grad_kernel=self._raw.seen[self._kernel.ref()],
            raw_grad_proxies=self._raw.seen[self._proxies.ref()],
            kernel=self._kernel,
            proxies=self._proxies,
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        state = self._projections
        self._record(
            step=state.validations,
            steps_wo_improvement=state.stale,
            best_monitored=np.float32(state.best_score),
            lam=state.proximal_coefficient,
            resets=state.instance,
            prev_kernel=state.anchors[0],
            best_kernel=state.best_weights[0],
            proxies_epoch_end=self._proxies,
            best_proxies=state.chooser.best,
        )

    def _record(self, **values: Any) -> None:
        for name, value in values.items():
            self.recorded.setdefault(name, []).append(np.array(value))
