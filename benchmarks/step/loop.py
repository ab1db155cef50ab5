"""A training loop on one batch of noise, for the benchmarks of the training step."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.config import command_line
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.data.pipeline import without_tuning
from ccp_dml.distributed.strategy import distributed_batches, make_workers
from ccp_dml.experiment.build import build_model
from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.embedding_model import backbone_variables, batch_norm_variables
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.gradients import ProximalTerm, make_transforms
from ccp_dml.training.optimizers import make_optimizer_groups
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer

CLASSES, PROXIES_PER_CLASS, SAMPLES_PER_CLASS = 240, 4, 4

Batch = tuple[np.ndarray, np.ndarray]


def configure(backbone: str, side: int, steps: int, classes: int, loss: str, *flags: str) -> ExperimentConfig:
    """The flags of a run in epochs of `steps` steps, with batches of `classes` classes of four images."""
    weights = "imagenet" if backbone == "efficientnet_lite0" else "random"
    return command_line.parse(
        [
            "--dataset=emoji",
            f"--loss={loss}",
            f"--backbone={backbone}",
            f"--backbone_weights={weights}",
            f"--image_size={side}",
            f"--classes_per_batch={classes}",
            f"--samples_per_class={SAMPLES_PER_CLASS}",
            f"--steps_per_epoch={steps}",
            *([f"--proxies_per_class={PROXIES_PER_CLASS}"] if loss.startswith("ccp/") else []),
            *flags,
        ]
    )


def make_batch(config: ExperimentConfig) -> Batch:
    """A batch of noise: float32 images, and int32 labels (class, image id)."""
    classes, side = config.batches.classes_per_batch, config.images.image_size
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.choice(CLASSES, classes, replace=False), SAMPLES_PER_CLASS)
    images = generator.uniform(0, 255, [len(labels), side, side, 3]).astype(np.float32)
    return images, np.stack([labels, np.arange(len(labels))], 1).astype(np.int32)


def make_model_and_loss(config: ExperimentConfig) -> tuple[tf.keras.Model, MetricLoss]:
    """The model and the loss of a run, for `CLASSES` classes."""
    model = build_model(config.model, config.images.image_size, config.run.seed)
    loss = registry.build(
        config.loss.loss,
        num_classes=CLASSES,
        embedding_size=config.model.embedding_size,
        shard_proxies=config.devices.shard_proxies,
        options=config.loss.parameters,
    )
    return model, loss


def make_trainer(config: ExperimentConfig, batch: Batch) -> Trainer:
    """The loop of a run on one batch, not traced yet.

    With CCP the proximal term is that of the second problem instance; proxies keep their first values.
    Nothing is validated or saved. With several replicas each of them has its rows of the batch.
    """
    workers = make_workers(config.devices)
    with workers.scope():
        model, loss = make_model_and_loss(config)
        proximal = None
        if config.uses_projections:
            anchors = [tf.Variable(tf.zeros_like(weight)) for weight in model.trainable_variables]
            coefficient = tf.Variable(config.projections.ccp_lambda)
            proximal = ProximalTerm(model.trainable_variables, anchors, coefficient)
        train_step = TrainStep(
            model,
            loss,
            make_optimizer_groups(config.optimizer, backbone_variables(model), model, loss),
            transforms=make_transforms(
                config.gradients,
                model.trainable_variables,
                proximal=proximal,
                exclude_from_decay=batch_norm_variables(model),
            ),
            jit_compile=config.training.jit_compile,
        )
    replicas = 1 if workers.strategy is None else workers.strategy.num_replicas_in_sync
    rows = tf.data.Dataset.from_tensor_slices(batch).batch(len(batch[0]) // replicas, drop_remainder=True)
    dataset = without_tuning(rows.cache().repeat())

    def batches(first_step: int) -> Any:
        return dataset

    if workers.strategy is not None:
        batches = distributed_batches(workers.strategy, lambda *_: dataset)
    return Trainer(train_step, batches, config.training, checkpoints=Checkpoints(None, workers=workers))
