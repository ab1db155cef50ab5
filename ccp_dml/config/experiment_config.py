"""The configuration of an experiment: all options, in groups."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

from ccp_dml.data.options import BatchOptions, ImageOptions, SourceOptions, SplitOptions
from ccp_dml.distributed.options import DeviceOptions
from ccp_dml.errors import ConfigError
from ccp_dml.evaluation.options import EvaluationOptions
from ccp_dml.kinds import LARGEST_INTEGER, Integer, PathText, Switch
from ccp_dml.losses.registry import LossOptions, loss_options
from ccp_dml.models.options import ModelOptions
from ccp_dml.monitoring.options import MonitoringOptions
from ccp_dml.options import Change, Option, OptionError, Options, option, options_of
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.training.options import CheckpointOptions, GradientOptions, OptimizerOptions, TrainingOptions


@dataclasses.dataclass(frozen=True)
class RunOptions(Options):
    """The run and its folder."""

    run_dir: str | None = option(
        None, PathText("a folder"), "Folder of the run (default: runs/<config>-<UTC time>).", Change.FREE
    )
    overwrite: bool = option(False, Switch(), "Replace the run in --run_dir.", Change.FREE)
    seed: int = option(0, Integer(0, LARGEST_INTEGER), "Seed of everything random.")
    repeat: int = option(1, Integer(1), "Number of runs of each fold; repeat r has the seed seed + r - 1.")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """The options of an experiment, in groups.

    Names are unique over all groups; each is a flag of the same name. Every value is in its range. The rules
    between options are in `config.checks`; `config.protocols` fills in values that follow from others.
    """

    source: SourceOptions = field(default_factory=SourceOptions)
    split: SplitOptions = field(default_factory=SplitOptions)
    batches: BatchOptions = field(default_factory=BatchOptions)
    images: ImageOptions = field(default_factory=ImageOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: LossOptions = field(default_factory=loss_options)
    projections: ProjectionOptions = field(default_factory=ProjectionOptions)
    optimizer: OptimizerOptions = field(default_factory=OptimizerOptions)
    gradients: GradientOptions = field(default_factory=GradientOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)
    checkpoints: CheckpointOptions = field(default_factory=CheckpointOptions)
    monitoring: MonitoringOptions = field(default_factory=MonitoringOptions)
    devices: DeviceOptions = field(default_factory=DeviceOptions)
    run: RunOptions = field(default_factory=RunOptions)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentConfig:
        """Makes a configuration from options by name; the others have their defaults.

        A `data_dir` without a `dataset` is that of an image_folder.

        Raises:
            ConfigError: if a name is no option or a value is out of its range.
        """
        implied = {} if values.get("data_dir") is None else {"dataset": "image_folder"}
        return cls().replace(**{**implied, **values})

    def replace(self, **values: Any) -> ExperimentConfig:
        """Makes a copy with other values of some options; a list stands for a tuple.

        Raises:
            ConfigError: if a name is no option or a value is out of its range.
        """
        groups = {}
        for group, section in self.groups():
            names = [declared.name for declared in options_of(section) if declared.name in values]
            changed = {name: _immutable(values.pop(name)) for name in names}
            if changed:
                try:
                    groups[group] = dataclasses.replace(section, **changed)
                except OptionError as error:
                    raise ConfigError(f"--{error}") from None
        if values:
            raise ConfigError(f"--{next(iter(values))}: unknown flag; --help lists all flags")
        return dataclasses.replace(self, **groups)

    def groups(self) -> Iterator[tuple[str, Any]]:
        """Name and options of each group."""
        for group in dataclasses.fields(self):
            yield group.name, getattr(self, group.name)

    def items(self) -> Iterator[tuple[Option, Any]]:
        """Every option with its value."""
        for _, section in self.groups():
            for declared in options_of(section):
                yield declared, getattr(section, declared.name)

    @property
    def flags(self) -> types.SimpleNamespace:
        """The values of all options by name, for rules that span groups."""
        return types.SimpleNamespace(**{declared.name: value for declared, value in self.items()})

    def to_dict(self) -> dict[str, Any]:
        """The values of all options by name; lists instead of tuples, as in JSON."""
        return {
            declared.name: list(value) if isinstance(value, tuple) else value
            for declared, value in self.items()
        }

    @property
    def uses_projections(self) -> bool:
        """True if the loss is CCP, which needs the alternating projections."""
        return "ccp" in self.loss.loss.split("/")


def _immutable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
