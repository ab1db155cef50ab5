"""Experiments, from their configuration to results: the place where all other packages meet."""
