"""Keras models and layers: embedding model, pixel scaling, pooling, proxies, backbones."""

from __future__ import annotations

from ccp_dml import lazy

_TARGETS = lazy.targets_of(
    {
        "embedding_model": "build_embedding_model",
        "layers": "GlobalPooling LipschitzNormalization PixelScaling",
        "proxies": "Proxies",
    }
)
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
