"""Flags that do nothing with the value of another flag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ccp_dml.config.fields import Flag
from ccp_dml.config.sections import ABLATION, MLRC, OPTIMIZERS_WITH_MOMENTS, OPTIMIZERS_WITH_MOMENTUM
from ccp_dml.errors import ConfigError

if TYPE_CHECKING:
    from ccp_dml.config.experiment_config import ExperimentConfig


@dataclass(frozen=True)
class _OneOf:
    """The values of another flag with which a flag does something; None: that it is not given."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    def written(self, flag: Flag) -> str:
        values = [flag.format(value) for value in self.values if value is not None]
        return f"--{flag.name}={' or '.join(values)}"


@dataclass(frozen=True)
class _AtLeast:
    """The same for a flag whose values are numbers."""

    least: int

    def __contains__(self, value: int) -> bool:
        return value >= self.least

    def written(self, flag: Flag) -> str:
        return f"at least {self.least}"


# The flags of a row do nothing unless the other one has such a value; a flag may be in several rows.
_ONLY_WITH: tuple[tuple[tuple[str, ...], str, _OneOf | _AtLeast], ...] = (
    (("train_fraction",), "closed_set", _OneOf(("off",))),
    (("batch_size",), "sampler", _OneOf(("random", "class_uniform"))),
    (
        (
            "classes_per_batch",
            "samples_per_class",
            "representative_lifetime",
            "augment_representatives",
        ),
        "sampler",
        _OneOf(("m_per_class",)),
    ),
    (("augment_representatives",), "representative_lifetime", _AtLeast(1)),
    (
        ("test_shorter_side", "crop_area_min", "crop_area_max", "crop_aspect_min", "crop_aspect_max"),
        "preprocessing",
        _OneOf(("dml",)),
    ),
    (("horizontal_flip",), "preprocessing", _OneOf(("dml", "cifar"))),
    (("momentum",), "optimizer", _OneOf(OPTIMIZERS_WITH_MOMENTUM)),
    (("beta_1", "beta_2"), "optimizer", _OneOf(OPTIMIZERS_WITH_MOMENTS)),
    (("decay_rate", "decay_epochs"), "learning_rate_schedule", _OneOf(("exponential",))),
    (
        ("plateau_factor", "plateau_patience", "min_learning_rate"),
        "learning_rate_schedule",
        _OneOf(("plateau",)),
    ),
    (
        ("pool_size", "ccp_normalized_embeddings", "ccp_random_init", "pool_memory_steps"),
        "ccp_use_representative_proxy",
        _OneOf((True,)),
    ),
    # Of a smaller pool every image becomes a proxy, whatever the distances.
    (("ccp_normalized_embeddings",), "pool_size", _AtLeast(2)),
    (("ccp_patience",), "ccp_reset_rule", _OneOf(("patience",))),
    (("ccp_staleness_threshold",), "ccp_reset_rule", _OneOf(("staleness",))),
    (("chunk_size",), "ccp_step_at_batch", _OneOf((False,))),
    (("validation_cache_mb",), "monitor_split", _OneOf((None, "validation"))),
    (("validation_cache_mb",), "protocol", _OneOf((None, MLRC, ABLATION))),
    (("cluster",), "strategy", _OneOf(("multi_worker",))),
    (("logical_cpus",), "strategy", _OneOf(("mirrored",))),
    (("shard_proxies",), "strategy", _OneOf(("mirrored", "multi_worker"))),
    (
        ("tensorboard_panels", "tensorboard_histograms", "tensorboard_projector"),
        "tensorboard",
        _OneOf((True,)),
    ),
)


def check(config: ExperimentConfig) -> None:
    """Every flag that has not its default does something.

    Raises:
        ConfigError: names the flag, and the other with the values that it is for.
    """
    for flag, value, master, found, wanted in _useless(config):
        raise ConfigError(
            f"{flag.written(value)}: it does nothing with {master.written(found)}; "
            f"expected {wanted.written(master)}"
        )


def useless(config: ExperimentConfig) -> Iterator[tuple[Flag, Flag]]:
    """Each flag that does nothing yet has not its default; with the flag it depends on."""
    for flag, _, master, _, _ in _useless(config):
        yield flag, master


def _useless(config: ExperimentConfig) -> Iterator[tuple[Flag, Any, Flag, Any, _OneOf | _AtLeast]]:
    values = {flag.name: (flag, value) for flag, value in config.items()}
    for names, master_name, wanted in _ONLY_WITH:
        master, found = values[master_name]
        for flag, value in (values[name] for name in names):
            if value != flag.default and found not in wanted:
                yield flag, value, master, found, wanted
