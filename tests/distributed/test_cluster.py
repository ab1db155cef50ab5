"""The check of TF_CONFIG, and the choice of the worker that writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.checks import check_cluster, check_flags
from ccp_dml.distributed.cluster import check_tf_config, is_chief
from ccp_dml.distributed.options import DeviceOptions
from ccp_dml.errors import ConfigError

_WORKERS = {"worker": ["one:1", "two:2"]}


def text(cluster: Any = _WORKERS, kind: Any = "worker", index: Any = 0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "value",
    [text(), text(index=1), text({"chief": ["c:1"], **_WORKERS}, "chief"), text({"worker": ["::1:5"]})],
)
def test_workers_are_accepted(value: str) -> None:
    check_tf_config({"TF_CONFIG": value})


@pytest.mark.parametrize(
    "value, problem",
    [
        (None, "is not set"),
        (" ", "is not set"),
        ("{", "is not JSON"),
        ("[]", "has no object 'cluster'"),
        ('{"cluster": {}}', "has no object 'cluster' or no object 'task'"),
        (text({"ps": ["a:1"], **_WORKERS}), "has tasks of the kind 'ps'"),
        (text({"worker": "a:1"}), "has no list of addresses"),
        (text({"worker": ["a"]}), "has no list of addresses"),
        (text({"worker": []}), "has no list of addresses"),
        (text({"chief": ["a:1", "b:1"]}, "chief"), "has several chiefs"),
        (text({"worker": ["a:1", "a:1"]}), "has the same address twice"),
        (text(kind="chief"), "has the task type 'chief'"),
        (text(index=2), r"has the task index 2, where its cluster has 0\.\.1"),
        (text(index="0"), "has the task index '0'"),
    ],
)
def test_anything_else_is_explained_in_one_line(value: str | None, problem: str) -> None:
    environment = {} if value is None else {"TF_CONFIG": value}
    with pytest.raises(ConfigError, match=f"TF_CONFIG {problem}.*; expected") as raised:
        check_tf_config(environment)
    assert "\n" not in str(raised.value)


def test_only_what_is_asked_for_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ConfigError, match="--strategy=multi_worker: .* is not set"):
        check_cluster(ExperimentConfig.from_dict({"strategy": "multi_worker"}))
    check_cluster(ExperimentConfig())


@pytest.mark.parametrize("flag", [{"logical_cpus": 2}, {"cluster": "slurm"}])
def test_flags_of_other_strategies_do_nothing(flag: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="it does nothing with --strategy=one"):
        check_flags(ExperimentConfig.from_dict(flag))


@pytest.mark.parametrize(
    "strategy, cluster, environment, expected",
    [
        ("one", "tf_config", {}, True),
        ("mirrored", "tf_config", {"TF_CONFIG": text(index=1)}, True),
        ("multi_worker", "tf_config", {"TF_CONFIG": text(index=0)}, True),
        ("multi_worker", "tf_config", {"TF_CONFIG": text(index=1)}, False),
        ("multi_worker", "tf_config", {"TF_CONFIG": text({"chief": ["c:1"], **_WORKERS}, "chief")}, True),
        ("multi_worker", "tf_config", {"TF_CONFIG": text({"chief": ["c:1"], **_WORKERS})}, False),
        ("multi_worker", "slurm", {"SLURM_PROCID": "0"}, True),
        ("multi_worker", "slurm", {"SLURM_PROCID": "3"}, False),
        ("multi_worker", "kubernetes", {}, True),
    ],
)
def test_one_worker_writes(strategy: str, cluster: str, environment: dict[str, str], expected: bool) -> None:
    assert is_chief(DeviceOptions(strategy=strategy, cluster=cluster), environment) is expected
