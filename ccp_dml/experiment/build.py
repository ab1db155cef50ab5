"""The builder of a run: from its configuration to data, model, loss, scorers and trainer.

`build` and `build_trainer` read from top to bottom. Functions that they call receive their own options, never
the complete configuration.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml import environment
from ccp_dml.commands import warn
from ccp_dml.config import ExperimentConfig
from ccp_dml.data.augmentation import train_preprocessing
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing, test_preprocessing
from ccp_dml.data.options import BatchOptions, ImageOptions
from ccp_dml.data.pipeline import FULL_BATCH, InferenceBatches, Shard, training_batches
from ccp_dml.data.random_streams import IntArray
from ccp_dml.data.sampling import OnePerClassSampler, make_sampler
from ccp_dml.distributed.strategy import distributed_batches, make_workers
from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, Evaluation, SmallerBlocks
from ccp_dml.evaluation.inputs import Floats
from ccp_dml.experiment.model import (
    Inference,
    build_model,
    compiled_inference,
    inference_bytes,
    load_initial_weights,
    set_up_tensorflow,
    training_bytes,
)
from ccp_dml.experiment.scoring import Scorer
from ccp_dml.experiment.task import Task, load_task
from ccp_dml.geometry import mean_cosine
from ccp_dml.kinds import format_size
from ccp_dml.losses import registry as losses
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.embedding_model import (
    backbone_variables,
    feature_model,
    synchronize_batch_norm,
    with_test_crops,
)
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import PoolMemory, ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import Checkpoints
from ccp_dml.training.options import TrainingOptions
from ccp_dml.training.trainer import Trainer

EmbedImages = Callable[[IntArray], Floats]
_BASELINE_NORMALIZATION = "unit"


@dataclasses.dataclass
class Run:
    """The components of a run, except its trainer.

    Attributes:
        config: the complete configuration.
        workers: the processes that train together, each with its devices.
        model: the embedding model.
        task: the image collections.
        loss: the loss.
        preprocessing: the resize and crop of evaluated images.
        blocks: the number of images to embed at once, common to the scorers and the training images.
        inference: the model in inference mode, compiled once for all uses.
        embedder: the evaluated model with the normalisation of the run.
        test: scores the test images.
        validation: scores the validation images; None if no class is held out.
        monitored_embeddings: embeddings of the monitored queries at the last validation, float32 [N, D].
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
        """The scorer of the images that `--monitor_split` names; None if no class is held out."""
        return self.test if self.config.training.monitor_split == "test" else self.validation

    def monitored_scores(self) -> dict[str, float]:
        """Scores the model on the monitored images and keeps their embeddings."""
        assert self.monitored is not None
        evaluation = self.monitored.evaluate(self.embedder)
        self.monitored_embeddings = evaluation.embeddings
        return {**evaluation.result.scalars(), "mean_cosine": mean_cosine(evaluation.embeddings)}

    def evaluate_frozen_features(self) -> Evaluation:
        """Scores the pooled features of the backbone, at unit length, on the test classes."""
        features = with_test_crops(feature_model(self.model), self.config.evaluation.test_crops)
        return self.test.evaluate(Embedder(features, _BASELINE_NORMALIZATION, self.workers))

    def training_image_embedder(
        self, normalization: str = "none", workers: Workers = SINGLE_WORKER
    ) -> EmbedImages:
        """Returns a function that embeds training images by index with the weights of the moment.

        Args:
            normalization: normalisation of the embeddings.
            workers: the replicas that divide the images; each process embeds the images that it asks for.
        """
        embedder = Embedder(self.inference, normalization, workers)

        @functools.lru_cache(maxsize=1)
        def batches(size: int) -> InferenceBatches:
            return InferenceBatches(self.task.train, self.preprocessing, size)

        def embed(indices: IntArray) -> Floats:
            return embedder(batches(self.blocks.batch_size).of(indices))

        return lambda indices: self.blocks(lambda: embed(indices))


def build(config: ExperimentConfig) -> Run:
    """Builds a run with the initial weights of its model.

    Args:
        config: a valid configuration of a single run, completed by `protocols.resolve`.

    Raises:
        UserError: if the data is missing, unusable, or too small for the flags.
    """
    # Devices and precision, before TensorFlow runs anything.
    workers = make_workers(config.devices)
    _check_batch_size(config.batches, workers)
    set_up_tensorflow(config.training, config.run.seed)

    # The model, before the data: a wrong layer or file is reported without a wait for the data.
    with workers.scope():
        model = build_model(config.model, config.images.image_size, config.run.seed)
    _synchronize_batch_norm(model, config.training, workers)
    _check_memory(config, model, workers)
    if config.model.initial_weights is not None:
        load_initial_weights(config.model.initial_weights, model)

    # Data.
    task = load_task(config.source, config.split, config.batches)

    # Loss.
    taken = losses.parameters(config.loss.loss)
    try:
        with workers.scope():
            loss = losses.build(
                config.loss.loss,
                num_classes=task.train.num_classes,
                embedding_size=config.model.embedding_size,
                seed=config.run.seed,
                shard_proxies=config.devices.shard_proxies,
                options={name: value for name, value in config.loss.parameters.items() if name in taken},
            )
    except ValueError as error:
        raise UserError(f"--loss={config.loss.loss}: {error}") from error

    # Evaluation.
    inference = evaluated = compiled_inference(model, config.images.image_size)
    if config.evaluation.test_crops:
        with_crops = with_test_crops(model, config.evaluation.test_crops)
        evaluated = compiled_inference(with_crops, config.images.image_size)
    preprocessing = test_preprocessing(config.images)
    blocks = SmallerBlocks(config.evaluation.evaluation_batch_size)
    scorer = functools.partial(Scorer, config.evaluation, preprocessing, blocks=blocks, workers=workers)
    test, validation = scorer(task.test, task.gallery, training=task.training_split), None
    if task.validation is not None:
        validation = scorer(task.validation, kept_megabytes=config.evaluation.validation_cache_mb)

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
    """Builds the trainer of a run, with its checkpoints in the run directory."""
    config, workers, model, loss = run.config, run.workers, run.model, run.loss
    options, is_monitored = config.training, run.monitored is not None
    if options.jit_compile and not tf.config.list_logical_devices("GPU"):
        warn("--jit_compile: on a CPU, XLA makes convolutional backbones slower")

    # Batches, divided among the replicas.
    batches = make_batches(config.batches, config.images, run.task.train, config.run.seed, workers)

    # Problem instances, whose proximal term ties the weights to the last solution.
    projections = [_make_projections(run, config.projections)] if config.uses_projections else []

    # The step, early stopping, the schedule and the loop.
    return Trainer.create(
        model,
        loss,
        batches,
        options,
        optimizer=config.optimizer,
        gradients=config.gradients,
        backbone=backbone_variables(model),
        validate=run.monitored_scores if is_monitored else None,
        controllers=projections,
        callbacks=callbacks,
        checkpoints=Checkpoints(directory.checkpoints, config.checkpoints, workers=workers),
    )


def make_batches(
    options: BatchOptions, image_options: ImageOptions, images: ImageCollection, seed: int, workers: Workers
) -> Callable[[int], Any]:
    """Returns a function that gives the stream of training batches from a step on, for all replicas."""
    sampler = make_sampler(options, images.labels, seed)
    preprocessing, unaugmented = train_preprocessing(image_options), None
    if options.representative_lifetime and not options.augment_representatives:
        unaugmented = (options.classes_per_batch, test_preprocessing(image_options))

    def batches(first_step: int, shard: Shard = FULL_BATCH) -> tf.data.Dataset:
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
    """Builds the problem instances of CCP, with the pool that new proxies are chosen from."""
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
    """Makes batch normalisation use the statistics of all replicas; raises `UserError` if XLA forbids it."""
    if workers.strategy is None or workers.strategy.num_replicas_in_sync == 1:
        return
    if synchronize_batch_norm(model) and options.jit_compile:
        raise UserError(
            "--jit_compile contradicts --strategy, as the backbone trains its batch normalisation and XLA "
            "cannot compile the exchange between replicas inside the model; expected --nojit_compile, or "
            "pretrained weights and --freeze_batch_norm"
        )


def _check_memory(config: ExperimentConfig, model: tf.keras.Model, workers: Workers) -> None:
    """Raises `UserError` if a batch needs more memory than the machine has.

    Where there is a GPU, TensorFlow itself reports that its memory is short; on a CPU, the process ends.
    """
    if tf.config.list_physical_devices("GPU"):
        return
    assert config.images.image_size is not None
    available, size = environment.memory_bytes(), f"--image_size={format_size(config.images.image_size)}"
    given, batch = _batch_size(config.batches)
    evaluated = config.evaluation.evaluation_batch_size
    steps = {
        f"{size} {given}: a training step": training_bytes(model) * batch // workers.count,
        f"{size} --evaluation_batch_size={evaluated}: an evaluation": inference_bytes(model) * evaluated,
    }
    for step, needed in steps.items():
        if needed > available:
            raise UserError(
                f"{step} needs more than {needed / 1e9:,.1f} GB of memory for the activations of the "
                f"network; expected at most the {available / 1e9:,.1f} GB of this machine, with smaller "
                "images or batches"
            )


def _batch_size(options: BatchOptions) -> tuple[str, int]:
    """The flags that give the number of images of a batch, and that number."""
    if options.batch_size is not None:
        return f"--batch_size={options.batch_size}", options.batch_size
    classes, samples = options.classes_per_batch, options.samples_per_class
    return f"--classes_per_batch={classes} --samples_per_class={samples}", classes * samples


def _check_batch_size(options: BatchOptions, workers: Workers) -> None:
    """Raises `UserError` unless the replicas can divide a batch equally."""
    replicas = 1 if workers.strategy is None else workers.strategy.num_replicas_in_sync
    given, size = _batch_size(options)
    if size % replicas:
        raise UserError(
            f"{given}: --strategy divides the {size} images of a batch among {replicas} replicas; "
            f"expected a multiple of {replicas}"
        )
