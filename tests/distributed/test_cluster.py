"""TF_CONFIG as a description of a cluster, and the worker that writes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ccp_dml.distributed.cluster import check_tf_config, is_chief
from ccp_dml.distributed.options import DeviceOptions
from ccp_dml.errors import ConfigError

_WORKERS = {"worker": ["one:1", "two:2"]}


def text(cluster: Any = _WORKERS, kind: Any = "worker", index: Any = 0) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


@pytest.mark.parametrize(
    "value",
    [
        text(),
        text(index=1),
        text({"chief": ["c:1"], **_WORKERS}, "chief"),
        text({"worker": ["::1:5"]}),
        text({"worker": ["[::1]:65535"]}),
    ],
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
        (text(kind=["worker"]), r"has the task type \['worker'\]"),
        (text(kind={}), "has the task type {}"),
        (text(kind=None), "has the task type None"),
        ("[" * 100_000, "is nested too deeply"),
        ("{}", "has no object 'cluster' or no object 'task'"),
        (text({"worker": ["a:99999", "b:1"]}), "has no list of addresses"),
        (text({"worker": ["a:0", "b:1"]}), "has no list of addresses"),
        (text({"worker": ["a:²", "b:1"]}), "has no list of addresses"),
        (text({"worker": ["a b:1", "b:1"]}), "has no list of addresses"),
        (text({"worker": ["http://a:1", "b:1"]}), "has no list of addresses"),
        (text({"worker": ["a:1 ", "b:1"]}), "has no list of addresses"),
        (text({"worker": [["a:1"], "b:1"]}), "has no list of addresses"),
    ],
)
def test_a_mistake_in_the_cluster_is_explained_in_one_line(value: str | None, problem: str) -> None:
    environment = {} if value is None else {"TF_CONFIG": value}
    with pytest.raises(ConfigError, match=f"TF_CONFIG {problem}.*; expected") as raised:
        check_tf_config(environment)
    assert "\n" not in str(raised.value)


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
def test_only_the_chief_writes(
    strategy: str, cluster: str, environment: dict[str, str], expected: bool
) -> None:
    assert is_chief(DeviceOptions(strategy=strategy, cluster=cluster), environment) is expected
