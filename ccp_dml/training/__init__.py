"""The training loop, alternating projections, gradient transforms, optimizers, checkpoints."""
