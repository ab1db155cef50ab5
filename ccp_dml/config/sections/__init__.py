"""The settings of an experiment, group by group. Every field is a flag of the same name."""

from ccp_dml.config.sections.data import ABLATION, ALL_FOLDS, CONVENTIONAL, MLRC, PROTOCOLS, DataConfig
from ccp_dml.config.sections.evaluation import EvaluationConfig
from ccp_dml.config.sections.loss import LossConfig
from ccp_dml.config.sections.model import ModelConfig
from ccp_dml.config.sections.projection import ProjectionConfig
from ccp_dml.config.sections.run import LARGEST_SEED, RunConfig
from ccp_dml.config.sections.training import (
    OPTIMIZERS,
    OPTIMIZERS_OF_WHOLE_TABLES,
    OPTIMIZERS_WITH_MOMENTS,
    OPTIMIZERS_WITH_MOMENTUM,
    TrainingConfig,
)

__all__ = [
    "ABLATION",
    "ALL_FOLDS",
    "CONVENTIONAL",
    "LARGEST_SEED",
    "MLRC",
    "OPTIMIZERS",
    "OPTIMIZERS_OF_WHOLE_TABLES",
    "OPTIMIZERS_WITH_MOMENTS",
    "OPTIMIZERS_WITH_MOMENTUM",
    "PROTOCOLS",
    "DataConfig",
    "EvaluationConfig",
    "LossConfig",
    "ModelConfig",
    "ProjectionConfig",
    "RunConfig",
    "TrainingConfig",
]
