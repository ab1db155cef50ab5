"""All settings of one experiment."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from ccp_dml.config import protocols, validation
from ccp_dml.config.fields import Flag, flags_of
from ccp_dml.config.sections import (
    CONVENTIONAL,
    DataConfig,
    EvaluationConfig,
    LossConfig,
    ModelConfig,
    ProjectionConfig,
    RunConfig,
    TrainingConfig,
)
from ccp_dml.distributed import cluster
from ccp_dml.errors import ConfigError
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones

_DEFAULT_BATCH_SIZE = 32
# Images are shown to the published models at 227 of 256 pixels.
_SHORTER_SIDE_RATIO = 256 / 227


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """The settings of an experiment, in groups. Flag names are unique over all groups."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    projection: ProjectionConfig = dataclasses.field(default_factory=ProjectionConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ExperimentConfig:
        """The configuration in which the named flags have these values, and the others their defaults.

        Raises:
            ConfigError: a name is no flag.
        """
        return cls().replace(**values)

    def replace(self, **values: Any) -> ExperimentConfig:
        """A copy in which the named flags have these values; a list stands for a tuple.

        Raises:
            ConfigError: a name is no flag.
        """
        groups = {}
        for group, section in self.groups():
            names = [flag.name for flag in flags_of(section)]
            changed = {name: _immutable(values.pop(name)) for name in names if name in values}
            groups[group] = dataclasses.replace(section, **changed)
        if values:
            raise ConfigError(f"--{next(iter(values))}: unknown flag")
        return dataclasses.replace(self, **groups)

    def groups(self) -> Iterator[tuple[str, Any]]:
        """Name and section of each group."""
        for field in dataclasses.fields(self):
            yield field.name, getattr(self, field.name)

    def items(self) -> Iterator[tuple[Flag, Any]]:
        """Every flag with its value."""
        for _, section in self.groups():
            for flag in flags_of(section):
                yield flag, getattr(section, flag.name)

    def to_dict(self) -> dict[str, Any]:
        """Flag names to values, as JSON has them."""
        return {flag.name: list(value) if isinstance(value, tuple) else value for flag, value in self.items()}

    @property
    def uses_projections(self) -> bool:
        """Whether the loss is CCP, whose problem instances alternate."""
        return "ccp" in self.loss.loss.split("/")

    @property
    def is_group(self) -> bool:
        """Whether this complete configuration stands for several runs: folds, repeats or both."""
        return protocols.is_group(self)

    @property
    def members(self) -> tuple[protocols.Member, ...]:
        """The runs that this complete configuration stands for; see `protocols.members`."""
        return protocols.members(self)

    @property
    def writes(self) -> bool:
        """Whether this process writes the run directory: of several workers, the chief alone."""
        return cluster.writes(self.run.strategy, self.run.cluster, os.environ)

    def validate(self) -> None:
        """Checks every value, then how they go together, then that cluster, data and backbone are there.

        Raises:
            ConfigError: names the flag or flags, what was found and what is expected.
        """
        self.check_flags()
        validation.check_cluster(self)
        num_classes = validation.check_data(self)
        validation.check_backbone(self)
        validation.check_classes(self, num_classes)
        protocols.check_initial_weights(self.resolve())

    def check_flags(self) -> None:
        """The part of `validate` that looks at no files.

        Raises:
            ConfigError: see `validate`.
        """
        validation.check_values(self.items())
        validation.check_combinations(self)
        validation.check_loss(self)

    def warnings(self) -> tuple[str, ...]:
        """What is allowed, yet worth a word to the user."""
        found = []
        if protocols.derived(self)["monitor_split"] == "test":
            protocol = self.data.protocol
            by = f"--protocol={protocol}" if protocol == CONVENTIONAL else "--monitor_split=test"
            found.append(
                f"{by} chooses the best epoch by the test classes: "
                "the result flatters the model and compares with no other"
            )
        if not self.data.check_counts:
            found.append(
                "--check_counts=false takes a part of a data set for the whole: "
                "the result compares with no published one"
            )
        if self.data.skip_bad_images and self.data.dataset != "image_folder":
            found.append(
                "--skip_bad_images may leave out images of a published data set: "
                "the result then compares with no published one"
            )
        return tuple(found)

    def resolve(self) -> ExperimentConfig:
        """A copy of this valid configuration in which values that follow from others are filled in."""
        data, model = self.data, self.model
        spec = backbones.BACKBONES[model.backbone]
        image_size = data.image_size or spec.default_image_size
        weights = model.backbone_weights or spec.default_weights
        freeze = model.freeze_batch_norm
        complete = self.replace(
            data_dir=_absolute(data.data_dir),
            prepared_dir=_absolute(data.prepared_dir),
            image_size=image_size,
            test_shorter_side=self._test_shorter_side(image_size),
            batch_size=data.batch_size or (None if data.sampler == "m_per_class" else _DEFAULT_BATCH_SIZE),
            normalization=self.loss.normalization or losses.normalizations(self.loss.loss)[0],
            backbone_weights=_weights(weights),
            freeze_batch_norm=weights != backbones.RANDOM if freeze is None else freeze,
            initial_weights=_absolute(model.initial_weights),
            **protocols.derived(self),
            **self._projection_monitor(),
            **self._warm_up_learning_rate(),
        )
        return complete if complete.is_group else complete.members[0].config

    def _projection_monitor(self) -> dict[str, Any]:
        projection = self.projection
        if not self.uses_projections:
            return {}
        monitor = projection.ccp_monitor or (
            "loss" if projection.ccp_step_at_batch else self.training.monitor
        )
        lower = monitor == "loss" if projection.ccp_stop_at_min is None else projection.ccp_stop_at_min
        return {"ccp_monitor": monitor, "ccp_stop_at_min": lower}

    def _warm_up_learning_rate(self) -> dict[str, Any]:
        training = self.training
        if training.warm_up_epochs == 0:
            return {}
        return {"warm_up_learning_rate": training.warm_up_learning_rate or training.learning_rate}

    def _test_shorter_side(self, image_size: int) -> int | None:
        if self.data.preprocessing != "dml":
            return None
        return self.data.test_shorter_side or round(image_size * _SHORTER_SIDE_RATIO)


def _immutable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _weights(weights: str) -> str:
    """Names as they are, files with their whole path: a run may be evaluated from elsewhere."""
    return str(_absolute(weights)) if backbones.is_file(weights) else weights


def _absolute(folder: str | None) -> str | None:
    return None if folder is None else os.path.abspath(os.path.expanduser(folder))
