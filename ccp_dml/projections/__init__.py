"""Alternating projections: when a problem instance ends, and the choice of proxies for the next one."""

from __future__ import annotations

from ccp_dml import lazy

_TARGETS = lazy.targets_of(
    {
        "callback": "CCPCallback",
        "options": "ProjectionOptions",
        "projections": "AlternatingProjections",
    }
)
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
