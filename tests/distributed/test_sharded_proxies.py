"""Sharded proxies and losses on replicas, computed by `sharded_replicas.py` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from ccp_dml.models.proxies import Proxies
from ccp_dml.models.sharded_proxies import ShardedProxies
from tests.distributed.processes import run_workers
from tests.distributed.sharded_replicas import Deviations
from tests.losses.shard_cases import FURTHER, REPRESENTATIVE


@pytest.fixture(
    scope="module",
    params=[(2, False), pytest.param((4, True), marks=pytest.mark.slow)],
    ids=["2 replicas", "4 replicas, all losses"],
)
def found(request, tmp_path_factory) -> tuple[bool, dict[str, Deviations]]:
    replicas, everything = request.param
    command = [sys.executable, "-m", "tests.distributed.sharded_replicas", str(replicas)]
    folder = tmp_path_factory.mktemp("checkpoints")
    process = subprocess.run(
        [*command, str(folder), *(["--all"] if everything else [])],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return everything, json.loads(process.stdout.splitlines()[-1])


def test_values_and_gradients_equal_those_of_unsharded_losses(found):
    everything, results = found
    for case in REPRESENTATIVE + (FURTHER if everything else []):
        deviations = results[case.id]
        assert set(deviations) == {"value", "embeddings", "proxies"}
        assert max(deviations.values()) < 1e-5, (case.id, deviations)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_20_steps_equal_those_with_an_unsharded_loss(found, optimizer):
    deviations = found[1][f"20 steps of {optimizer}"]
    assert set(deviations) == {"weights", "proxies"}
    assert max(deviations.values()) <= 1.0, deviations


def test_a_run_continues_with_another_number_of_replicas(found):
    deviations = found[1]["continued"]
    assert len(deviations) == 6
    assert max(deviations.values()) <= 1.0, deviations


def test_tables_survive_resets_and_checkpoints(found):
    deviations = found[1]["table"]
    assert len(deviations) == 5
    assert max(deviations.values()) == 0.0, deviations


@pytest.mark.slow
def test_two_workers_agree_with_one_device(tmp_path):
    for done in run_workers(*[["-m", "tests.distributed.sharded_worker", tmp_path]] * 2):
        assert done.returncode == 0, done.stderr[-4000:]
        results = json.loads(done.stdout.splitlines()[-1])
        assert list(results) == [case.id for case in REPRESENTATIVE]
        for name, deviations in results.items():
            assert len(deviations) == 6
            assert max(deviations.values()) < 1e-5, (name, deviations)


@pytest.mark.slow
def test_the_example_of_the_documentation_runs(tmp_path):
    project = Path(__file__).parents[2]
    text = (project / "docs" / "scaling.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    process = subprocess.run(
        [sys.executable, "-c", example],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(project)},
        timeout=600,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    assert list(tmp_path.glob("checkpoints/proxies*"))


def test_one_replica_holds_all_classes():
    proxies = ShardedProxies(5, 2, 4)
    assert proxies.embeddings.shape == (10, 4)
    tf.debugging.assert_equal(proxies.labels, Proxies(5, 2, 4).labels)
    tf.debugging.assert_equal(proxies.whole(), proxies.by_class)
    assert len(proxies.trainable_variables) == 1


def test_initial_values_depend_on_the_seed_and_have_the_deviation_of_the_whole_table():
    one, again, other = (ShardedProxies(20_000, 1, 8, seed=seed) for seed in (1, 1, 2))
    tf.debugging.assert_equal(one.embeddings, again.embeddings)
    assert float(tf.reduce_max(tf.abs(one.embeddings - other.embeddings))) > 0.001
    assert float(tf.math.reduce_std(one.embeddings)) == pytest.approx((2.0 / 20_000) ** 0.5, rel=0.01)


def test_the_config_restores_the_layer():
    proxies = ShardedProxies(5, 2, 4, learning_rate_multiplier=7.0, seed=3, name="p")
    again = tf.keras.layers.deserialize(tf.keras.layers.serialize(proxies))
    assert again.get_config() == proxies.get_config()
    tf.debugging.assert_equal(again.embeddings, proxies.embeddings)


def test_a_reset_with_another_order_of_axes_is_refused():
    with pytest.raises(ValueError, match=r"\[K, C, D\] = \[2, 5, 4\]"):
        ShardedProxies(5, 2, 4).reset(tf.zeros([5, 2, 4]))
