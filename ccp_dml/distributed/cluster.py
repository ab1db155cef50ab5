"""The environment variable TF_CONFIG, which names the workers and tells a process which one it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ccp_dml.distributed.options import DeviceOptions
from ccp_dml.errors import ConfigError

VARIABLE = "TF_CONFIG"
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
_TRAINING = ("chief", "worker")
# A name or an address; that of IPv6 may be in brackets.
_ADDRESS = re.compile(r"([\w.:-]+|\[[\da-fA-F:.]+\]):(?P<port>\d{1,5})", re.ASCII)


def check_tf_config(environment: Mapping[str, str]) -> None:
    """Checks that the variable names the workers and which of them this process is.

    Raises:
        ConfigError: if the variable is missing or has another content.
    """
    text = environment.get(VARIABLE, "")
    problem = _problem(text)
    if problem is not None:
        raise ConfigError(
            f"--strategy=multi_worker: the environment variable {VARIABLE} {problem}; expected, for the "
            f"first of two workers, {VARIABLE}='{_EXAMPLE}'"
        )


def is_chief(devices: DeviceOptions, environment: Mapping[str, str]) -> bool:
    """Returns True if this process is the chief, which alone writes files; a single process is the chief.

    Kubernetes does not tell a process its number, so there each process counts as the chief.

    Args:
        devices: the options of the devices.
        environment: the environment variables; a TF_CONFIG that is needed has to be valid.
    """
    if devices.strategy != "multi_worker":
        return True
    if devices.cluster == "slurm":
        return environment.get("SLURM_PROCID", "0") == "0"
    if devices.cluster != "tf_config":
        return True
    value = json.loads(environment[VARIABLE])
    task = value["task"]
    return task["index"] == 0 and (task["type"] == "chief" or "chief" not in value["cluster"])


def _problem(text: str) -> str | None:
    if not text.strip():
        return "is not set"
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"is not JSON ({error})"
    except RecursionError:
        return "is nested too deeply"
    cluster, task = (value.get(key) for key in ("cluster", "task")) if isinstance(value, dict) else (0, 0)
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        return "has no object 'cluster' or no object 'task'"
    return _problem_of_cluster(cluster) or _problem_of_task(cluster, task)


def _problem_of_cluster(cluster: dict[str, Any]) -> str | None:
    unknown = sorted(set(cluster) - set(_TRAINING))
    if unknown:
        return f"has tasks of the kind {unknown[0]!r} in its cluster, where chief and worker are expected"
    for kind, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses or not all(map(_is_address, addresses)):
            return f"has no list of addresses like 'host:port' for {kind!r}"
    if len(cluster.get("chief", ["one"])) != 1:
        return "has several chiefs"
    addresses = [address for of_kind in cluster.values() for address in of_kind]
    return "has the same address twice" if len(set(addresses)) < len(addresses) else None


def _is_address(value: object) -> bool:
    found = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return found is not None and 0 < int(found["port"]) < 2**16


def _problem_of_task(cluster: dict[str, Any], task: dict[str, Any]) -> str | None:
    kind, index = task.get("type"), task.get("index")
    if not isinstance(kind, str) or kind not in cluster:
        return f"has the task type {kind!r}, which is not in its cluster"
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(cluster[kind]):
        return f"has the task index {index!r}, where its cluster has 0..{len(cluster[kind]) - 1}"
    return None
