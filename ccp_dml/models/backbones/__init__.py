"""Backbone networks: registry, architectures and their ImageNet weights."""
