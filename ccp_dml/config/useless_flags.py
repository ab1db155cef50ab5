"""Flags that do nothing with the value of another flag."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ccp_dml.config.fields import Flag
from ccp_dml.config.sections import OPTIMIZERS_WITH_MOMENTS, OPTIMIZERS_WITH_MOMENTUM
from ccp_dml.errors import ConfigError

if TYPE_CHECKING:
    from ccp_dml.config.experiment_config import ExperimentConfig

# A flag on the left does nothing unless the flag on the right has one of these values.
_ONLY_WITH: dict[str, tuple[str, tuple[Any, ...]]] = {
    "train_fraction": ("closed_set", ("off",)),
    "batch_size": ("sampler", ("random", "class_uniform")),
    "classes_per_batch": ("sampler", ("m_per_class",)),
    "samples_per_class": ("sampler", ("m_per_class",)),
    "representative_lifetime": ("sampler", ("m_per_class",)),
    "augment_representatives": ("sampler", ("m_per_class",)),
    "test_shorter_side": ("preprocessing", ("dml",)),
    "crop_area_min": ("preprocessing", ("dml",)),
    "crop_area_max": ("preprocessing", ("dml",)),
    "crop_aspect_min": ("preprocessing", ("dml",)),
    "crop_aspect_max": ("preprocessing", ("dml",)),
    "horizontal_flip": ("preprocessing", ("dml", "cifar")),
    "momentum": ("optimizer", OPTIMIZERS_WITH_MOMENTUM),
    "beta_1": ("optimizer", OPTIMIZERS_WITH_MOMENTS),
    "beta_2": ("optimizer", OPTIMIZERS_WITH_MOMENTS),
    "decay_rate": ("learning_rate_schedule", ("exponential",)),
    "decay_epochs": ("learning_rate_schedule", ("exponential",)),
    "plateau_factor": ("learning_rate_schedule", ("plateau",)),
    "plateau_patience": ("learning_rate_schedule", ("plateau",)),
    "min_learning_rate": ("learning_rate_schedule", ("plateau",)),
    "pool_size": ("ccp_use_representative_proxy", (True,)),
    "ccp_normalized_embeddings": ("ccp_use_representative_proxy", (True,)),
    "ccp_random_init": ("ccp_use_representative_proxy", (True,)),
    "pool_memory_steps": ("ccp_use_representative_proxy", (True,)),
    "ccp_patience": ("ccp_reset_rule", ("patience",)),
    "ccp_staleness_threshold": ("ccp_reset_rule", ("staleness",)),
    "cluster": ("strategy", ("multi_worker",)),
    "logical_cpus": ("strategy", ("mirrored",)),
    "shard_proxies": ("strategy", ("mirrored", "multi_worker")),
    "tensorboard_panels": ("tensorboard", (True,)),
    "tensorboard_histograms": ("tensorboard", (True,)),
    "tensorboard_projector": ("tensorboard", (True,)),
}


def check(config: ExperimentConfig) -> None:
    """Every flag that has not its default does something.

    Raises:
        ConfigError: names the flag, and the other with the values that it is for.
    """
    for flag, value, master, found in useless(config):
        wanted = " or ".join(master.format(item) for item in _ONLY_WITH[flag.name][1])
        raise ConfigError(
            f"{flag.written(value)}: it does nothing with {master.written(found)}; "
            f"expected --{master.name}={wanted}"
        )


def useless(config: ExperimentConfig) -> Iterator[tuple[Flag, Any, Flag, Any]]:
    """Each flag that does nothing yet has not its default, and its value; then the flag it depends on."""
    values = {flag.name: (flag, value) for flag, value in config.items()}
    for name, (master, useful) in _ONLY_WITH.items():
        flag, value = values[name]
        if value != flag.default and values[master][1] not in useful:
            yield flag, value, *values[master]
