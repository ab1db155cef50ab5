"""The builder of a run: from its configuration to data, model, loss, optimizer, projections and trainer.

`build` and `build_trainer` read from top to bottom. What they call receives its own options, never the whole
configuration.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing, test_preprocessing, train_preprocessing
from ccp_dml.data.options import BatchOptions, ImageOptions
from ccp_dml.data.pipeline import WHOLE, Shard, inference_batches, training_batches
from ccp_dml.data.random_streams import IntArray
from ccp_dml.data.sampling import OnePerClassSampler, make_sampler
from ccp_dml.distributed.strategy import distributed_batches, make_workers
from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, Evaluation, SmallerBlocks
from ccp_dml.evaluation.inputs import Floats
from ccp_dml.experiment.scoring import Scorer
from ccp_dml.experiment.task import Task, load_task
from ccp_dml.experiment.weights import load_initial_weights
from ccp_dml.geometry import mean_cosine
from ccp_dml.losses import registry as losses
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.embedding_model import (
    backbone_variables,
    batch_norm_variables,
    build_embedding_model,
    feature_model,
    synchronize_batch_norm,
    with_test_crops,
)
from ccp_dml.models.options import ModelOptions
from ccp_dml.options import options_of
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import PoolMemory, ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.controllers import EarlyStopping, make_schedule
from ccp_dml.training.finite import FiniteGuard
from ccp_dml.training.gradients import ProximalTerm, make_transforms
from ccp_dml.training.optimizers import make_optimizer_groups
from ccp_dml.training.options import TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from ccp_dml.training.warm_up import WarmUp

Inference = Callable[..., tf.Tensor]
EmbedImages = Callable[[IntArray], Floats]
_BASELINE_NORMALIZATION = "unit"


@dataclasses.dataclass
class Run:
    """The components of a run, but for its trainer.

    Attributes:
        config: the complete configuration.
        workers: the processes, each with its devices, that train together.
        model: the embedding model.
        task: the image collections.
        loss: the loss.
        preprocessing: the resize and crop of images that are evaluated.
        blocks: number of images that are embedded at once; one for all, as the memory is one.
        inference: the model in inference mode, compiled once for all that embed images.
        embedder: the evaluated model with the run's normalisation.
        test: scores the test images.
        validation: scores the validation images; None if no class is held out.
        monitored_embeddings: float32 [N, D], those of the monitored queries at the last validation.
    """

    config: ExperimentConfig
    workers: Workers
    model: tf.keras.Model
    task: Task
    loss: MetricLoss
    preprocessing: TestPreprocessing
    blocks: SmallerBlocks
    inference: Inference
    embedder: Embedder
    test: Scorer
    validation: Scorer | None
    monitored_embeddings: Floats = dataclasses.field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def monitored(self) -> Scorer | None:
        """Scores the images that `--monitor_split` names; None if no class is held out."""
        return self.test if self.config.training.monitor_split == "test" else self.validation

    def monitored_scores(self) -> dict[str, float]:
        """Scores the model on the monitored images, whose embeddings are kept."""
        assert self.monitored is not None
        evaluation = self.monitored.evaluate(self.embedder)
        self.monitored_embeddings = evaluation.embeddings
        return {**evaluation.result.scalars(), "mean_cosine": mean_cosine(evaluation.embeddings)}

    def evaluate_frozen_features(self) -> Evaluation:
        """Scores the pooled features of the backbone as it is now, at unit length, on the test classes."""
        features = with_test_crops(feature_model(self.model), self.config.evaluation.test_crops)
        return self.test.evaluate(Embedder(features, _BASELINE_NORMALIZATION, self.workers))

    def training_image_embedder(
        self, normalization: str = "none", workers: Workers = SINGLE_WORKER
    ) -> EmbedImages:
        """A function that embeds training images by index, with the weights that the model then has.

        Each process embeds the images that it is asked for; the replicas of `workers` in it divide them.
        """
        embedder = Embedder(self.inference, normalization, workers)

        def embed(indices: IntArray) -> Floats:
            size = self.blocks.batch_size
            return embedder(inference_batches(self.task.train, self.preprocessing, size, indices))

        return lambda indices: self.blocks(lambda: embed(indices))


def build(config: ExperimentConfig) -> Run:
    """Builds a run, with the model's initial weights.

    Args:
        config: a valid configuration, with its derived values filled in (`protocols.resolve`).

    Raises:
        UserError: if the data is missing, unusable, or too small for the flags.
    """
    # Devices and precision, before TensorFlow does anything.
    workers = make_workers(config.devices)
    _check_batch_size(config.batches, workers)
    set_up_tensorflow(config.training, config.run.seed)

    # The model before the data: a wrong layer or file is found without waiting for these.
    with workers.scope():
        model = build_model(config.model, config.images.image_size, config.run.seed)
    _synchronize_batch_norm(model, config.training, workers)
    if config.model.initial_weights is not None:
        load_initial_weights(config.model.initial_weights, model)

    # Data.
    task = load_task(config.source, config.split, config.batches)

    # Loss.
    with workers.scope():
        loss = losses.build(
            config.loss.loss,
            num_classes=task.train.num_classes,
            embedding_size=config.model.embedding_size,
            seed=config.run.seed,
            shard_proxies=config.devices.shard_proxies,
            options=config.loss.parameters,
        )

    # Evaluation.
    options, preprocessing = config.evaluation, test_preprocessing(config.images)
    blocks = SmallerBlocks(options.evaluation_batch_size)
    inference = compiled_inference(model, config.images.image_size)
    evaluated = inference
    if options.test_crops:
        evaluated = compiled_inference(with_test_crops(model, options.test_crops), config.images.image_size)
    shared: dict[str, Any] = {"blocks": blocks, "workers": workers}
    test = Scorer(options, preprocessing, task.test, task.gallery, training=task.training_split, **shared)
    validation = None
    if task.validation is not None:
        kept = options.validation_cache_mb
        validation = Scorer(options, preprocessing, task.validation, kept_megabytes=kept, **shared)

    return Run(
        config=config,
        workers=workers,
        model=model,
        task=task,
        loss=loss,
        preprocessing=preprocessing,
        blocks=blocks,
        inference=inference,
        embedder=Embedder(evaluated, config.loss.normalization, workers),
        test=test,
        validation=validation,
    )


def build_trainer(
    run: Run, directory: RunDirectory, callbacks: Sequence[tf.keras.callbacks.Callback] = ()
) -> Trainer:
    """Builds the trainer of a run, with its state in the run directory."""
    config, workers, model, loss = run.config, run.workers, run.model, run.loss
    options, monitored = config.training, run.monitored is not None
    if options.jit_compile and not tf.config.list_logical_devices("GPU"):
        warn("--jit_compile: on a CPU, XLA makes convolutional backbones slower")

    # Batches, divided among the replicas.
    batches = make_batches(config.batches, config.images, run.task.train, config.run.seed, workers)

    # Problem instances, and the proximal term that ties the weights to the last solution.
    projections = proximal = None
    if config.uses_projections:
        projections = _make_projections(run, config.projections)
        proximal = ProximalTerm(
            model.trainable_variables, projections.anchors, projections.proximal_coefficient
        )

    # The step: loss, gradients, transforms, optimizer.
    backbone = backbone_variables(model)
    with workers.scope():
        train_step = TrainStep(
            model,
            loss,
            make_optimizer_groups(config.optimizer, backbone, model, loss),
            transforms=make_transforms(
                config.gradients,
                model.trainable_variables,
                proximal=proximal,
                exclude_from_decay=batch_norm_variables(model),
            ),
            guard=FiniteGuard(options.nan_policy),
            jit_compile=options.jit_compile,
        )

    # Controllers: early stopping keeps the best weights before the projections may change proxies.
    schedule = make_schedule(config.optimizer, options.monitor, options.steps_per_epoch)
    stopping = None
    if monitored:
        kept = [*model.variables, *loss.variables] if options.restore_best else []
        stopping = EarlyStopping(kept, patience=options.patience or None, monitor=options.monitor)
    controllers = [found for found in (stopping, schedule, projections) if found is not None]

    warm_up_rate = config.optimizer.warm_up_learning_rate or config.optimizer.learning_rate
    return Trainer(
        train_step,
        batches,
        options,
        warm_up=WarmUp(
            config.optimizer.warm_up_epochs, backbone, warm_up_rate / config.optimizer.learning_rate
        ),
        validate=run.monitored_scores if monitored else None,
        controllers=controllers,
        callbacks=callbacks,
        checkpoints=Checkpoints(directory.checkpoints, config.checkpoints, warn=warn, workers=workers),
    )


def set_up_tensorflow(options: TrainingOptions, seed: int) -> None:
    """Makes the process repeatable, and sets the precision of its layers and products.

    For the whole process: TensorFlow has no other way.
    """
    tf.keras.utils.set_random_seed(seed)
    wanted = options.deterministic
    if wanted or (wanted is None and not tf.config.list_physical_devices("GPU")):
        tf.config.experimental.enable_op_determinism()
    tf.keras.mixed_precision.set_global_policy(options.mixed_precision)
    # A GPU would round the factors of float32 products to 10 bits, distances included.
    tf.config.experimental.enable_tensor_float_32_execution(False)


def build_model(
    options: ModelOptions, image_size: int | None, seed: int, *, load: bool = True
) -> tf.keras.Model:
    """Builds the embedding model; its backbone has its initial weights unless `load` is False.

    Raises:
        UserError: if an option does not fit the backbone, or a file of weights is damaged.
    """
    try:
        return build_embedding_model(
            options.backbone,
            weights=options.backbone_weights,
            embedding_size=options.embedding_size,
            pooling=options.pooling,
            image_size=image_size,
            seed=seed,
            freeze_batch_norm=options.freeze_batch_norm,
            layer=options.backbone_layer,
            frozen_layers=options.frozen_layers,
            options=options.backbone_options,
            load=load,
        )
    except ValueError as error:
        names = ("backbone", "backbone_weights", "backbone_layer", "frozen_layers", "pooling")
        given = [declared for declared in options_of(options) if declared.name in names]
        written = [
            f"--{declared.written(value)}"
            for declared in given
            if (value := getattr(options, declared.name)) not in (None, ())
        ]
        raise UserError(f"{' '.join(written)}: {error}") from error


def compiled_inference(model: tf.keras.Model, side: int | None) -> Inference:
    """The model in inference mode as one compiled function."""

    @tf.function(input_signature=[tf.TensorSpec([None, side, side, 3], tf.float32)])
    def infer(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return lambda images, training=False: infer(images)


def make_batches(
    options: BatchOptions, image_options: ImageOptions, images: ImageCollection, seed: int, workers: Workers
) -> Callable[[int], Any]:
    """The stream of training batches from a step on, divided among the replicas."""
    sampler = make_sampler(options, images.labels, seed)
    preprocessing, unaugmented = train_preprocessing(image_options), None
    if options.representative_lifetime and not options.augment_representatives:
        unaugmented = (options.classes_per_batch, test_preprocessing(image_options))

    def batches(first_step: int, shard: Shard = WHOLE) -> tf.data.Dataset:
        return training_batches(
            images,
            sampler,
            preprocessing,
            seed=seed,
            first_step=first_step,
            unaugmented=unaugmented,
            shard=shard,
        )

    if workers.strategy is None:
        return batches
    return distributed_batches(
        workers.strategy,
        lambda first_step, worker, count, replicas: batches(first_step, Shard(worker, count, replicas)),
    )


def _make_projections(run: Run, options: ProjectionOptions) -> AlternatingProjections:
    proxies, images, seed = run.loss.proxies, run.task.train, run.config.run.seed
    assert proxies is not None
    draws = options.draws(proxies.proxies_per_class)
    sampler = OnePerClassSampler(images.labels, seed, window=draws)
    memory = None
    if options.pool_memory_steps and options.ccp_use_representative_proxy:
        memory = PoolMemory(images.image_ids, proxies.embedding_size, options.pool_memory_steps)
    embed = run.training_image_embedder(workers=run.workers)
    pool = ProxyPool(sampler.draws, embed, memory, run.workers)
    normalization = run.config.loss.normalization
    return AlternatingProjections(
        run.model.trainable_variables, proxies, pool, options, normalization=normalization, seed=seed
    )


def _synchronize_batch_norm(model: tf.keras.Model, options: TrainingOptions, workers: Workers) -> None:
    if workers.strategy is None or workers.strategy.num_replicas_in_sync == 1:
        return
    if synchronize_batch_norm(model) and options.jit_compile:
        raise UserError(
            "--jit_compile contradicts --strategy, as the backbone trains its batch normalisation and XLA "
            "cannot compile the exchange between replicas inside the model; expected --nojit_compile, or "
            "pretrained weights and --freeze_batch_norm"
        )


def _check_batch_size(options: BatchOptions, workers: Workers) -> None:
    """Raises `UserError` unless the replicas can divide a batch equally."""
    replicas = 1 if workers.strategy is None else workers.strategy.num_replicas_in_sync
    by_classes = (
        f"--classes_per_batch={options.classes_per_batch} --samples_per_class={options.samples_per_class}"
    )
    given = by_classes if options.batch_size is None else f"--batch_size={options.batch_size}"
    size = options.batch_size or options.classes_per_batch * options.samples_per_class
    if size % replicas:
        raise UserError(
            f"{given}: --strategy divides the {size} images of a batch among {replicas} replicas; "
            f"expected a multiple of {replicas}"
        )
