"""The configuration of an experiment: options, flags, flagfiles, checks; imports no TensorFlow."""

from ccp_dml.config.experiment_config import ExperimentConfig

__all__ = ["ExperimentConfig"]
