"""The settings of an experiment, group by group. Every field is a flag of the same name."""

from ccp_dml.config.sections.data import DataConfig
from ccp_dml.config.sections.evaluation import EvaluationConfig
from ccp_dml.config.sections.loss import LossConfig
from ccp_dml.config.sections.model import ModelConfig
from ccp_dml.config.sections.projection import ProjectionConfig
from ccp_dml.config.sections.run import RunConfig
from ccp_dml.config.sections.training import (
    OPTIMIZERS,
    OPTIMIZERS_OF_WHOLE_TABLES,
    OPTIMIZERS_WITH_MOMENTS,
    OPTIMIZERS_WITH_MOMENTUM,
    TrainingConfig,
)

__all__ = [
    "OPTIMIZERS",
    "OPTIMIZERS_OF_WHOLE_TABLES",
    "OPTIMIZERS_WITH_MOMENTS",
    "OPTIMIZERS_WITH_MOMENTUM",
    "DataConfig",
    "EvaluationConfig",
    "LossConfig",
    "ModelConfig",
    "ProjectionConfig",
    "RunConfig",
    "TrainingConfig",
]
