"""Training with sharded proxies, against one device; `test_on_replicas.py` runs these tests."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.distributed import replicas
from ccp_dml.distributed.tables import global_norm
from ccp_dml.distributed.workers import Workers
from ccp_dml.losses.registry import build
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.controllers import EarlyStopping
from ccp_dml.training.gradients import ProximalTerm, make_transforms
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import GradientOptions, TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from tests.distributed import devices
from tests.distributed.runs import (
    INPUT,
    NUDGE,
    SMOOTH,
    assert_same_figures,
    batches,
    network,
    nudge_weights,
)
from tests.losses.cases import NUM_CLASSES, SIZE, LossCase
from tests.losses.shard_cases import table_of

STEPS = 3
# Scores of the epochs: the second is the best one; those after it end a problem instance.
SCORES = (0.1, 0.5, 0.3, 0.2, 0.4)
CCP = LossCase("ccp/contrastive", {"proxies_per_class": 2, **SMOOTH})
NCA = LossCase("proxy_nca", {"proxies_per_class": 2})
MEMORY = LossCase(
    "ccp/xbm/contrastive", {"memory_size": 12, "start_step": 2, "proxies_per_class": 2, **SMOOTH}
)
LEVELS = LossCase("mdr/proxy_nca", {"regularization_weight": 0.5, "level_weight": 0.1})


@dataclass
class Run:
    """A run and its components."""

    trainer: Trainer
    proxies: Proxies
    projections: AlternatingProjections | None
    logs: dict[str, list[float]]

    def figures(self) -> dict[str, np.ndarray]:
        """Returns all arrays that have to be equal to those of one device."""
        found = {name: np.array(values) for name, values in self.logs.items() if name not in _OF_THE_CLOCK}
        found |= {f"weight {i}": w.numpy() for i, w in enumerate(self.trainer.model.variables)}
        state = [v for v in self.trainer.loss.variables if not v.trainable]
        found |= {f"state {i}": variable.numpy() for i, variable in enumerate(state)}
        found |= {name: np.sort(values, axis=None) for name, values in self.trainer.diagnostics.items()}
        found["proxies"] = self.proxies.whole().numpy()
        if self.projections is not None:
            chooser = self.projections.chooser
            found["images"] = chooser.images.numpy()
            rows = tf.range(NUM_CLASSES * self.proxies.proxies_per_class, dtype=tf.int64)
            found["best proxies"] = self.proxies.rows_of(chooser.best, rows).numpy()
        return found


_OF_THE_CLOCK = ("images_per_second", "data_wait_share")


def run(
    count: int,
    case: LossCase,
    *,
    sharded: bool,
    epochs: int = 5,
    folder: Path | None = None,
    clip: float = 0.3,
    strategy: tf.distribute.Strategy | None = None,
    nudge: float = 0.0,
) -> Run:
    """Trains from fixed weights, or from the newest checkpoint, and restores the best epoch."""
    strategy = strategy or devices.strategy(count)
    workers = Workers(strategy if count > 1 else None)
    with replicas.scope(strategy) if count > 1 else contextlib.nullcontext():
        model = network()
        nudge_weights(model, nudge)
        sizes = {"num_classes": NUM_CLASSES, "embedding_size": SIZE}
        loss = build(case.path, shard_proxies=sharded, options=case.options, **sizes)
        proxies = loss.proxies
        others = [v for v in loss.trainable_variables if v is not proxies.embeddings]
        groups = [
            VariableGroup([*model.trainable_variables, *others]),
            VariableGroup([proxies.embeddings], 2.0),
        ]
        optimizer = OptimizerGroups(functools.partial(make_optimizer, "sgd", momentum=0.9), groups, 0.01)
    proxies.reset(table_of(7, proxies))
    projections = _projections(model, proxies, workers) if case.path.startswith("ccp") else None
    with replicas.scope(strategy) if count > 1 else contextlib.nullcontext():
        weights = model.trainable_variables
        proximal = None
        if projections is not None:
            proximal = ProximalTerm(weights, projections.anchors, projections.proximal_coefficient)
        options = GradientOptions(weight_decay=1e-3, clip_norm=clip, clip_value=0.0)
        step = TrainStep(
            model, loss, optimizer, transforms=make_transforms(options, weights, proximal=proximal)
        )
    stopping = EarlyStopping([*model.variables, *loss.variables], patience=0)
    trainer = Trainer(
        step,
        batches(strategy, STEPS * epochs),
        TrainingOptions(steps_per_epoch=STEPS, chunk_size=STEPS),
        validate=lambda: {"map_at_r": SCORES[trainer.epoch - 1]},
        controllers=[stopping] if projections is None else [stopping, projections],
        checkpoints=Checkpoints(folder, workers=workers),
    )
    trainer.restore()
    logs = trainer.fit(epochs)
    return Run(trainer, proxies, projections, logs)


def _projections(model: tf.keras.Model, proxies: Proxies, workers: Workers) -> AlternatingProjections:
    images = np.random.default_rng(3).normal(size=(NUM_CLASSES, 6, INPUT)).astype(np.float32)

    def draws(first: int, count: int) -> np.ndarray:
        numbers = np.arange(first, first + count)[:, np.newaxis]
        return 6 * np.arange(NUM_CLASSES) + (numbers + np.arange(NUM_CLASSES)) % 6

    def embed(indices: np.ndarray) -> np.ndarray:
        return model(images.reshape(-1, INPUT)[indices]).numpy()

    pool = ProxyPool(draws, embed, workers=workers)
    options = ProjectionOptions(ccp_lambda=0.1, pool_size=5, ccp_reset_rule="patience", ccp_patience=2)
    return AlternatingProjections(model.trainable_variables, proxies, pool, options)


@functools.cache
def on_one_device(case: str, nudge: float = 0.0) -> Run:
    """Makes a run on one device, once."""
    [found] = [known for known in (CCP, NCA, MEMORY, LEVELS) if known.id == case]
    return run(1, found, sharded=False, nudge=nudge)


def assert_like_one_device(found: Run, case: LossCase) -> None:
    """Raises unless a run has the figures of one device, within rounding."""
    expected, nudged = (on_one_device(case.id, nudge).figures() for nudge in (0.0, NUDGE))
    assert_same_figures(found.figures(), expected, nudged)


@pytest.mark.parametrize(
    "case",
    [CCP, *(pytest.param(case, marks=pytest.mark.slow) for case in (NCA, MEMORY, LEVELS))],
    ids=lambda case: case.id,
)
def test_a_run_with_sharded_proxies_equals_that_of_one_device(case: LossCase) -> None:
    expected, found = on_one_device(case.id), run(2, case, sharded=True)
    assert found.proxies.embeddings.shape[0] == 3 * found.proxies.proxies_per_class
    # The best epoch is before the last reset, so proxies from before it are restored.
    assert expected.trainer.best_epoch == 1
    assert min(expected.logs["gradient_norm"]) > 0.3
    if expected.projections is not None:
        assert int(expected.projections.instance) == 1
        assert np.isfinite(expected.logs["proxy_staleness"]).all()
        assert "proxy_negative_distances" in found.trainer.diagnostics
    assert_like_one_device(found, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [CCP, NCA], ids=lambda case: case.id)
def test_unsharded_proxies_and_a_replica_without_a_class(case: LossCase) -> None:
    assert_like_one_device(run(2, case, sharded=False), case)
    assert_like_one_device(run(4, case, sharded=True), case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [CCP, NCA], ids=lambda case: case.id)
@pytest.mark.parametrize("other", [(1, False), (2, False), (4, True)], ids=str)
def test_a_run_continues_with_other_replicas_and_back_again(
    case: LossCase, other: tuple[int, bool], tmp_path: Path
) -> None:
    run(2, case, sharded=True, epochs=2, folder=tmp_path)
    run(other[0], case, sharded=other[1], epochs=4, folder=tmp_path)
    back = run(2, case, sharded=True, folder=tmp_path)
    back.logs = on_one_device(case.id).logs  # It has only those of the last epoch.
    assert_like_one_device(back, case)


def test_the_global_norm_covers_all_shards() -> None:
    strategy = devices.strategy(2)
    with strategy.scope():
        proxies = build(NCA.path, num_classes=5, embedding_size=SIZE, shard_proxies=True).proxies
        weight = tf.Variable([3.0, 4.0])
    proxies.reset(table_of(1, proxies))
    variables = [weight, proxies.embeddings]
    found = strategy.run(tf.function(lambda: global_norm(list(map(tf.identity, variables)), variables)))
    expected = np.sqrt(25.0 + np.sum(np.square(proxies.whole(), dtype=np.float64)))
    for result in strategy.experimental_local_results(found):
        np.testing.assert_allclose(result, expected, rtol=1e-6)


def test_uses_that_would_silently_be_wrong_are_refused() -> None:
    strategy = devices.strategy(2)
    with strategy.scope():
        model = network()
        loss = build(NCA.path, num_classes=5, embedding_size=SIZE, shard_proxies=True)
        variables = [*model.trainable_variables, *loss.trainable_variables]
        make = functools.partial(make_optimizer, "sgd")
        with pytest.raises(ValueError, match="expected a group without other variables"):
            OptimizerGroups(make, [VariableGroup(variables)], 0.1)
        optimizer: Any = None
        with pytest.raises(ValueError, match="jit_compile is True, but embeddings:0 is sharded"):
            TrainStep(model, loss, optimizer, jit_compile=True)
    with pytest.raises(RuntimeError, match="the proxies are sharded"):
        loss.proxies.by_class  # noqa: B018 - it raises
