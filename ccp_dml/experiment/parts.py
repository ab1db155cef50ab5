"""The parts of a run, made from its configuration."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import tensorflow as tf

from ccp_dml.config import ExperimentConfig
from ccp_dml.config.sections import (
    OPTIMIZERS_WITH_MOMENTS,
    OPTIMIZERS_WITH_MOMENTUM,
    DataConfig,
    TrainingConfig,
)
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.pipeline import inference_batches
from ccp_dml.data.random_streams import IntArray
from ccp_dml.data.sampling import OnePerClassSampler
from ccp_dml.distributed.workers import ALONE, Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, SmallerBlocks
from ccp_dml.evaluation.inputs import Floats
from ccp_dml.experiment.repetition import make_repeatable
from ccp_dml.losses import registry as losses
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.embedding_model import (
    backbone_variables,
    batch_norm_variables,
    build_embedding_model,
    with_test_crops,
)
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import PoolMemory, ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.projections.reset_rules import make_reset_rule
from ccp_dml.training.controllers import ExponentialDecay, ReduceOnPlateau, Schedule
from ccp_dml.training.gradients import (
    AverageRegularization,
    GradientTransform,
    ProximalTerm,
    standard_transforms,
)
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.warm_up import WarmUp

Inference = Callable[..., tf.Tensor]

MID_GRAY = 127.5


def prepare_tensorflow(config: ExperimentConfig) -> None:
    """Makes the process repeatable, and sets the precision of its layers and products."""
    make_repeatable(config)
    tf.keras.mixed_precision.set_global_policy(config.training.mixed_precision)
    # A GPU would round the factors of float32 products to 10 bits, distances included.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def test_preprocessing(config: DataConfig) -> TestPreprocessing:
    """Resize and crop of images that are evaluated."""
    assert config.image_size is not None
    return TestPreprocessing(
        config.image_size,
        config.test_shorter_side,
        padding=MID_GRAY if config.preprocessing == "cifar" else 0.0,
        gray=config.preprocessing == "mnist",
    )


def make_model(config: ExperimentConfig, *, load: bool = True) -> tf.keras.Model:
    """The embedding model with its initial weights, those of the backbone loaded if asked.

    Raises:
        UserError: if a flag of the model does not fit its backbone, or a file of weights is damaged.
    """
    flags = config.model
    try:
        return build_embedding_model(
            flags.backbone,
            weights=flags.backbone_weights,
            embedding_size=flags.embedding_size,
            pooling=flags.pooling,
            image_size=config.data.image_size,
            seed=config.run.seed,
            freeze_batch_norm=flags.freeze_batch_norm,
            layer=flags.backbone_layer,
            frozen_layers=flags.frozen_layers,
            options=flags.backbone_options,
            load=load,
        )
    except ValueError as error:
        raise UserError(f"{_model_flags(config)}: {error}") from error


def evaluated_model(config: ExperimentConfig, model: tf.keras.Model) -> tf.keras.Model:
    """The model that is tested and exported: with `--test_crops`, one that averages over crops."""
    return with_test_crops(model, config.evaluation.test_crops)


def _model_flags(config: ExperimentConfig) -> str:
    """The flags that were given for the backbone, as a user writes them."""
    names = ("backbone", "backbone_weights", "backbone_layer", "frozen_layers", "pooling")
    given = {flag.name: flag.format(value) for flag, value in config.items() if value not in (None, ())}
    return " ".join(f"--{name}={given[name]}" for name in names if name in given)


def normalization(config: ExperimentConfig) -> str:
    """Normalisation of embeddings in loss, evaluation and export."""
    assert config.loss.normalization is not None
    return config.loss.normalization


def make_loss(config: ExperimentConfig, num_classes: int) -> MetricLoss:
    """The loss of the path `--loss`, with the options that were given."""
    options = asdict(config.loss)
    path = options.pop("loss")
    return losses.build(
        path,
        num_classes=num_classes,
        embedding_size=config.model.embedding_size,
        seed=config.run.seed,
        shard_proxies=config.run.shard_proxies,
        options={name: value for name, value in options.items() if value is not None},
    )


def make_optimizer_groups(config: TrainingConfig, model: tf.keras.Model, loss: MetricLoss) -> OptimizerGroups:
    """The optimizer: the same for backbone, head and proxies, the last with a learning-rate multiplier."""
    options: dict[str, Any] = {}
    if config.optimizer in OPTIMIZERS_WITH_MOMENTUM:
        options["momentum"] = config.momentum
    if config.optimizer in OPTIMIZERS_WITH_MOMENTS:
        options |= {"beta_1": config.beta_1, "beta_2": config.beta_2}
    proxies = [] if loss.proxies is None else list(loss.proxies.trainable_variables)
    multiplier = 1.0 if loss.proxies is None else loss.proxies.learning_rate_multiplier
    # The backbone apart: while a warm-up freezes it, its optimizer must not count the steps.
    backbone = backbone_variables(model)
    apart = {variable.ref() for variable in (*proxies, *backbone)}
    others = [
        variable
        for variable in (*model.trainable_variables, *loss.trainable_variables)
        if variable.ref() not in apart
    ]
    groups = [VariableGroup(backbone), VariableGroup(others), VariableGroup(proxies, multiplier)]
    make = functools.partial(make_optimizer, config.optimizer, **options)
    return OptimizerGroups(make, groups, config.learning_rate)


def make_schedule(config: TrainingConfig) -> Schedule | None:
    """The learning-rate schedule; None for a constant rate."""
    if config.learning_rate_schedule == "exponential":
        return ExponentialDecay(
            config.learning_rate,
            decay_rate=config.decay_rate,
            decay_steps=max(1, round(config.decay_epochs * config.steps_per_epoch)),
        )
    if config.learning_rate_schedule == "plateau":
        return ReduceOnPlateau(
            config.learning_rate,
            factor=config.plateau_factor,
            patience=config.plateau_patience,
            min_learning_rate=config.min_learning_rate,
            monitor=config.monitor,
        )
    return None


def make_warm_up(config: TrainingConfig, model: tf.keras.Model) -> WarmUp:
    """The epochs in which the backbone is frozen."""
    multiplier = (config.warm_up_learning_rate or config.learning_rate) / config.learning_rate
    return WarmUp(config.warm_up_epochs, backbone_variables(model), multiplier)


def make_projections(
    config: ExperimentConfig,
    model: tf.keras.Model,
    inference: Inference,
    loss: MetricLoss,
    images: ImageCollection,
    blocks: SmallerBlocks,
    workers: Workers = ALONE,
) -> AlternatingProjections | None:
    """The problem instances of CCP; None for other losses. `blocks`: how many images are embedded at once."""
    if not config.uses_projections:
        return None
    assert loss.proxies is not None
    flags = config.projection
    options = ProjectionOptions(
        coefficient=flags.ccp_lambda,
        decay=flags.ccp_lambda_decay,
        min_iterations=flags.ccp_min_iterations,
        pool_size=flags.pool_size,
        random_init=flags.ccp_random_init,
        normalized_embeddings=flags.ccp_normalized_embeddings,
        use_representative_proxy=flags.ccp_use_representative_proxy,
        perturb_noise=flags.ccp_perturb_noise,
        step_at_batch=flags.ccp_step_at_batch,
        monitor=flags.ccp_monitor or config.training.monitor,
        stop_at_min=bool(flags.ccp_stop_at_min),
        seed=config.run.seed,
    )
    rule = make_reset_rule(
        flags.ccp_reset_rule,
        patience=flags.ccp_patience,
        max_iterations=flags.ccp_max_iterations,
        staleness_threshold=flags.ccp_staleness_threshold,
    )
    draws = options.draws(loss.proxies.proxies_per_class)
    sampler = OnePerClassSampler(images.labels, config.run.seed, window=draws)
    memory = None
    if flags.pool_memory_steps and flags.ccp_use_representative_proxy:
        memory = PoolMemory(images.image_ids, config.model.embedding_size, flags.pool_memory_steps)
    embed = image_embedder(config, inference, images, blocks, workers=workers)
    pool = ProxyPool(sampler.draws, embed, memory, workers)
    return AlternatingProjections(
        model.trainable_variables,
        loss.proxies,
        pool,
        options,
        reset_rule=rule,
        embed_images=pool.embed_images,
        normalization=normalization(config),
        # It embeds images: too much for every step.
        track_staleness=not flags.ccp_step_at_batch,
        memory=memory,
        workers=workers,
    )


def make_inference(config: ExperimentConfig, model: tf.keras.Model) -> Inference:
    """The model in inference mode as one compiled function, which all that embed images share."""
    side = config.data.image_size

    @tf.function(input_signature=[tf.TensorSpec([None, side, side, 3], tf.float32)])
    def infer(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return lambda images, training=False: infer(images)


def image_embedder(
    config: ExperimentConfig,
    inference: Inference,
    images: ImageCollection,
    blocks: SmallerBlocks,
    normalization: str = "none",
    workers: Workers = ALONE,
) -> Callable[[IntArray], Floats]:
    """Embeds images of a collection by index, with the weights that the model has when it is called.

    Each process embeds those that it is asked for; of `workers` the replicas of this one divide them.
    """
    embedder, preprocessing = Embedder(inference, normalization, workers), test_preprocessing(config.data)
    return lambda indices: blocks(
        lambda: embedder(inference_batches(images, preprocessing, blocks.batch_size, indices))
    )


def make_average_regularization(
    config: TrainingConfig, model: tf.keras.Model
) -> AverageRegularization | None:
    """The regularisation of the model by the averages of its weights; None without."""
    if config.ema_attraction == config.ema_repulsion == 0:
        return None
    return AverageRegularization(
        model.trainable_variables,
        attraction=config.ema_attraction,
        repulsion=config.ema_repulsion,
        decay=config.ema_decay,
    )


def make_transforms(
    config: TrainingConfig, model: tf.keras.Model, projections: AlternatingProjections | None
) -> list[GradientTransform]:
    """What happens to gradients, in the order of the algorithm."""
    proximal = (
        None
        if projections is None
        else ProximalTerm(model.trainable_variables, projections.anchors, projections.proximal_coefficient)
    )
    return standard_transforms(
        proximal=proximal,
        averages=make_average_regularization(config, model),
        weight_decay=config.weight_decay,
        exclude_from_decay=batch_norm_variables(model),
        clip_norm=config.clip_norm or None,
        clip_value=config.clip_value or None,
    )
