"""The training loop: steps, controllers, gradient transforms, optimizers, checkpoints."""
