"""Drives the alternating projections by hand, epoch by epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.projections.reset_rules import make_reset_rule
from tests.parity.comparison import Case, Comparison


def compare(case: Case) -> list[Comparison]:
    """The state after every epoch."""
    config, arrays = case.config, case.arrays
    weight = tf.Variable(arrays["weights_initial"])
    proxies = Proxies(config["C"], config["K"], config["d"])
    proxies.embeddings.assign(arrays["proxies_initial"])
    projections = AlternatingProjections(
        [weight],
        proxies,
        _cyclic_pool(arrays["pool"]),
        ProjectionOptions(
            coefficient=config["lambda_0"],
            decay=config["lambda_decay"],
            min_iterations=config["ccp_iterations"],
            pool_size=config["representative_pool_size"],
            random_init=config["random_init"],
            normalized_embeddings=config["normalized_embeddings"],
            perturb_noise=config["perturb_noise"],
            stop_at_min=config["stop_at_min"],
            min_improvement=config["min_improvement_margin"],
        ),
        reset_rule=make_reset_rule(
            "patience" if config["early_stopping"] else "fixed", patience=config["early_stopping_patience"]
        ),
    )
    projections.begin()
    results = [
        Comparison("proxies_after_begin", proxies.embeddings.numpy(), arrays["proxies_after_begin"]),
        Comparison(
            "lambda_after_begin", projections.proximal_coefficient.numpy(), arrays["lambda_after_begin"]
        ),
        Comparison("draws_after_begin", projections.draws.numpy(), arrays["draws_after_begin"], rtol=0.0),
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


def _cyclic_pool(pool: np.ndarray) -> Any:
    """Draw n is row n of the recorded pool, again and again."""

    def draw(first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(first, first + count) % len(pool)
        return pool[rows], np.broadcast_to(rows[:, None], (count, pool.shape[1]))

    return draw


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
        "best_proxies_after": projections.best_proxies.numpy(),
        "draws_after": projections.draws.numpy(),
    }
