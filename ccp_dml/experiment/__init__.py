"""Experiments, from their configuration to results: the one place where the rest of the library meets."""
