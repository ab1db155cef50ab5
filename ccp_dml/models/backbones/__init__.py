"""Backbone networks: the registry, the architectures, and their ImageNet weights."""
