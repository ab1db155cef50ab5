"""Adam with a larger learning rate for the proxies, on a linear model."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from tests.parity.adapters.losses import build_loss, loss_name
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """Compares one case of optim_adamlrm.npz."""
    config = case.config
    multiplier = next(
        (m for key, m in config["multipliers"].items() if config["proxy_variable"].startswith(key)), 1.0
    )
    loss = build_loss(loss_name(config), case, {"proxy_learning_rate_multiplier": multiplier})
    kernel = tf.Variable(case.arrays["kernel_initial"])
    proxies = loss.proxies.embeddings
    # Keras corrects the bias in float32, so the decays are rounded to float32, too.
    decays = {name: float(np.float32(config[name])) for name in ("beta_1", "beta_2")}
    optimizer = OptimizerGroups(
        functools.partial(make_optimizer, "adam", epsilon=config["epsilon"], **decays),
        [VariableGroup([kernel]), VariableGroup([proxies], loss.proxies.learning_rate_multiplier)],
        config["learning_rate"],
    )
    recorded: dict[str, list[np.ndarray]] = {"loss": [], "kernel": [], "proxies": []}
    for x, labels in zip(case.arrays["x"], case.arrays["labels"]):
        with tf.GradientTape() as tape:
            value = loss(labels, x @ kernel)
        variables = [kernel, proxies]
        optimizer.apply(tape.gradient(value, variables), variables)
        for name, actual in {"loss": value, "kernel": kernel, "proxies": proxies}.items():
            recorded[name].append(actual.numpy())
    return [Comparison(name, np.stack(values), case.arrays[name]) for name, values in recorded.items()]
