"""The training loop: steps, controllers, gradient transforms, optimizers, checkpoints."""

from __future__ import annotations

from ccp_dml import lazy

_TARGETS = lazy.targets_of(
    {
        "checkpoints": "Checkpoints",
        "options": "GradientOptions OptimizerOptions TrainingOptions",
        "trainer": "Trainer",
    }
)
__all__ = sorted(_TARGETS)
__getattr__ = lazy.loader(__name__, _TARGETS)
