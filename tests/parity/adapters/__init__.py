"""Adapters, one per golden file, which run a recorded case through the public functions."""
