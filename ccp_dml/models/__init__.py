"""Keras models and layers: embedding model, pixel scaling, pooling, proxies, backbones."""
