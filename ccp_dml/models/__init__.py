"""Keras models and layers: embedding model, pooling, proxies, backbones."""
