"""With which flags the proxies can be spread over the replicas."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from ccp_dml.config.sections import OPTIMIZERS_OF_WHOLE_TABLES
from ccp_dml.losses.sharding import obstacle

if TYPE_CHECKING:
    from ccp_dml.config.experiment_config import ExperimentConfig


def contradictions(config: ExperimentConfig) -> Iterator[str]:
    """What is wrong with the flags beside `--shard_proxies`, each problem in one line."""
    run, training = config.run, config.training
    if not run.shard_proxies:
        return
    given = {name: value for name, value in asdict(config.loss).items() if value is not None}
    found = obstacle(config.loss.loss, given)
    if found is not None:
        written = {flag.name: flag for flag, _ in config.items()}[found.option].written(found.value)
        yield (
            f"--shard_proxies contradicts {written} with --loss={config.loss.loss}: {found.why}; "
            f"expected {found.expected}"
        )
    if training.jit_compile:
        yield (
            "--shard_proxies contradicts --jit_compile: what replicas exchange inside the loss cannot be "
            "compiled; expected --nojit_compile"
        )
    if training.optimizer in OPTIMIZERS_OF_WHOLE_TABLES:
        yield (
            f"--shard_proxies contradicts --optimizer={training.optimizer}, which takes norms of the whole "
            f"table of proxies; expected another one than {' and '.join(OPTIMIZERS_OF_WHOLE_TABLES)}"
        )
