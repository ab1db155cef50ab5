"""Alternating projections without training, epoch by epoch."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from tests.parity.comparison import Case, Comparison, NotPorted


def compare(case: Case) -> list[Comparison]:
    """Compares the state after every epoch."""
    config, arrays = case.config, case.arrays
    if config["min_improvement_margin"] != 1e-5:
        raise NotPorted("an improvement counts from 1e-5 on")
    weight = tf.Variable(arrays["weights_initial"])
    proxies = Proxies(config["C"], config["K"], config["d"])
    proxies.embeddings.assign(arrays["proxies_initial"])
    projections = AlternatingProjections(
        [weight],
        proxies,
        _cyclic_pool(arrays["pool"]),
        ProjectionOptions(
            ccp_lambda=config["lambda_0"],
            ccp_lambda_decay=config["lambda_decay"],
            ccp_reset_rule="patience" if config["early_stopping"] else "fixed",
            ccp_patience=config["early_stopping_patience"],
            ccp_min_iterations=config["ccp_iterations"],
            pool_size=config["representative_pool_size"],
            ccp_random_init=config["random_init"],
            ccp_normalized_embeddings=config["normalized_embeddings"],
            ccp_perturb_noise=config["perturb_noise"],
            ccp_stop_at_min=config["stop_at_min"],
        ),
    )
    projections.begin()
    results = [
        Comparison("proxies_after_begin", proxies.embeddings.numpy(), arrays["proxies_after_begin"]),
        Comparison(
            "lambda_after_begin", projections.proximal_coefficient.numpy(), arrays["lambda_after_begin"]
        ),
        Comparison(
            "draws_after_begin", projections.chooser.draws.numpy(), arrays["draws_after_begin"], rtol=0.0
        ),
    ]
    states = []
    for epoch, score in enumerate(arrays["monitored"]):
        weight.assign(arrays["weights"][epoch])
        proxies.embeddings.assign(arrays["proxies_before"][epoch])
        projections.update(float(score))
        states.append(_state(projections, proxies))
    counters = ("step_after", "steps_wo_improvement_after", "resets_after", "draws_after")
    for name in states[0]:
        actual = np.stack([state[name] for state in states])
        results.append(Comparison(name, actual, arrays[name], rtol=0.0 if name in counters else 1e-5))
    return results


def _cyclic_pool(embeddings: np.ndarray) -> ProxyPool:
    """Makes a pool that draws the rows of embeddings [n, C, D] in turn."""
    rows, classes, size = embeddings.shape

    def draws(first: int, count: int) -> np.ndarray:
        return (np.arange(first, first + count) % rows)[:, None] * classes + np.arange(classes)

    return ProxyPool(draws, lambda images: embeddings.reshape(-1, size)[images])


def _state(projections: AlternatingProjections, proxies: Proxies) -> dict[str, np.ndarray]:
    return {
        "step_after": projections.validations.numpy(),
        "steps_wo_improvement_after": projections.stale.numpy(),
        "best_monitored_after": projections.best_score.numpy().astype(np.float32),
        "lambda_after": projections.proximal_coefficient.numpy(),
        "resets_after": projections.instance.numpy(),
        "prev_weights_after": projections.anchors[0].numpy(),
        "best_weights_after": projections.best_weights[0].numpy(),
        "proxies_after": proxies.embeddings.numpy(),
        "best_proxies_after": projections.chooser.best.numpy(),
        "draws_after": projections.chooser.draws.numpy(),
    }
