"""Flags and the frozen dataclasses that they fill, with validation; imports no TensorFlow."""

from ccp_dml.config.experiment_config import ExperimentConfig

__all__ = ["ExperimentConfig"]
