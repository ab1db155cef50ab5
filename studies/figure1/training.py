"""Training of a small network that embeds into the plane, with its proxies measured along the way."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from ccp_dml.data.sampling import OnePerClassSampler
from ccp_dml.datasets.fashion_mnist import source
from ccp_dml.evaluation.embedding import Embedder
from ccp_dml.geometry import normalize
from ccp_dml.losses.ccp import CCP
from ccp_dml.losses.contrastive import Contrastive
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.gradients import ProximalTerm
from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
from ccp_dml.training.options import TrainingOptions
from ccp_dml.training.step import TrainStep
from ccp_dml.training.trainer import Trainer
from studies.figure1 import measures
from studies.figure1.data import CLASSES, Split, batches, preprocess
from studies.figure1.measures import Floats

_EMBEDDING_BATCH = 1000


@dataclass(frozen=True)
class Setting:
    """The values of a run.

    Attributes:
        trained_per_class: training images of a class, out of 6,000; fewer keep the run short.
        steps_per_epoch: steps between two measurements.
        epochs: number of epochs.
        epochs_per_instance: number of epochs after which new proxies are chosen.
        samples_per_class: images of each of the ten classes in a batch.
        learning_rate: of Adam.
        proxies_per_class: K.
        proxy_multiplier: factor on the learning rate of the proxies.
        pool_size: b, the embeddings per class that proxies are chosen from.
        coefficient: λ of the proximal term, from the second instance on.
        pair_weight: weight of the pairs of the batch.
        positive_margin: m+ of the contrastive loss.
        negative_margin: m- of the contrastive loss.
        normalization: of embeddings and proxies in the loss, the measurements and the pictures.
        measured_per_class: images of a class that are measured, in both splits.
    """

    trained_per_class: int = 1000
    steps_per_epoch: int = 50
    epochs: int = 16
    epochs_per_instance: int = 4
    samples_per_class: int = 4
    learning_rate: float = 1e-3
    proxies_per_class: int = 8
    proxy_multiplier: float = 1.0
    pool_size: int = 12
    coefficient: float = 2e-4
    pair_weight: float = 0.1
    positive_margin: float = 0.0
    negative_margin: float = 0.3841
    normalization: str = "lipschitz"
    measured_per_class: int = 200


def make_network(seed: int) -> tf.keras.Model:
    """Two convolutions, a hidden layer, and the plane: [B, 28, 28, 1] -> [B, 2]."""
    seeds = iter(range(1000 * seed, 1000 * seed + 4))

    def initializer() -> Any:
        return tf.keras.initializers.GlorotUniform(seed=next(seeds))

    layers = tf.keras.layers
    return tf.keras.Sequential(
        [
            tf.keras.Input((source.SIDE, source.SIDE, 1)),
            layers.Conv2D(16, 5, 2, "same", activation="relu", kernel_initializer=initializer()),
            layers.Conv2D(32, 5, 2, "same", activation="relu", kernel_initializer=initializer()),
            layers.Flatten(),
            layers.Dense(64, activation="relu", kernel_initializer=initializer()),
            layers.Dense(2, use_bias=False, kernel_initializer=initializer(), name="embedding"),
        ]
    )


def make_embedder(network: tf.keras.Model, normalization: str) -> Callable[[source.Bytes], Floats]:
    """Embeds images uint8 [N, 28, 28] with the present weights and normalises: float32 [N, 2]."""
    embedder = Embedder(lambda images, training: network(preprocess(images), training), normalization)
    return lambda images: embedder(tf.data.Dataset.from_tensor_slices(images).batch(_EMBEDDING_BATCH))


class Recorder(tf.keras.callbacks.Callback):
    """Measures trained proxies and, when they are replaced, the new ones.

    Attributes:
        curve: the measurements in order of time: `step`; the problem `instance` (from 1) of the proxies;
            `proxies`, which is `"chosen"` or `"trained"`; and, for both splits, the results of
            `measures.coverage` and `measures.nearest_proxy_accuracy`.
        pictures: every `steps_per_picture` steps, the embeddings [N, 2] of the measured training images, the
            trained proxies `old` [K, C, 2], and `new` ones if an instance begins there.
    """

    def __init__(
        self,
        splits: dict[str, Split],
        embed: Callable[[source.Bytes], Floats],
        loss: CCP,
        projections: AlternatingProjections,
        steps_per_picture: int,
    ) -> None:
        super().__init__()
        self._steps_per_picture = steps_per_picture
        self._splits, self._embed, self._loss, self._projections = splits, embed, loss, projections
        self._step = 0
        self.curve: list[dict[str, Any]] = []
        self.pictures: list[dict[str, Floats]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures the first proxies, which have just been chosen."""
        if epoch == 0:
            self._measure("chosen")

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        """Measures the trained proxies, before they may be replaced."""
        assert logs is not None
        self._step = logs["step"]
        self._measure("trained")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Measures new proxies, if an instance has just begun."""
        if int(self._projections.instance) == self.curve[-1]["instance"]:
            self._measure("chosen")

    def _measure(self, kind: str) -> None:
        proxies = normalize(self._loss.proxies.by_class, self._loss.base.options.normalization).numpy()
        embeddings = {name: self._embed(split.images) for name, split in self._splits.items()}
        scores = {
            name: {
                **measures.coverage(embeddings[name], split.labels, proxies),
                "accuracy": measures.nearest_proxy_accuracy(embeddings[name], split.labels, proxies),
            }
            for name, split in self._splits.items()
        }
        instance = int(self._projections.instance) + 1
        self.curve.append({"step": self._step, "instance": instance, "proxies": kind, **scores})
        self._keep_picture(kind, embeddings["train"], proxies)

    def _keep_picture(self, kind: str, embeddings: Floats, proxies: Floats) -> None:
        ends = self._step and self._step % self._steps_per_picture == 0
        if ends and kind == "trained":
            self.pictures.append({"embeddings": embeddings, "old": proxies})
        elif ends:
            self.pictures[-1]["new"] = proxies


def train(data: dict[str, Split], setting: Setting, seed: int, steps_per_picture: int) -> Recorder:
    """Trains a network and its proxies, and measures them along the way.

    The first instance is the same for all settings that differ in `epochs_per_instance` alone.

    Args:
        data: the splits, see `load`.
        setting: the values of the run.
        seed: of the weights, the batches and the draws of proxies.
        steps_per_picture: a multiple of `steps_per_epoch`.

    Returns:
        The measurements.
    """
    tf.keras.utils.set_random_seed(seed)
    trained = data["train"].first_per_class(setting.trained_per_class)
    network, loss = make_network(seed), _make_loss(setting)
    projections = _make_projections(setting, seed, trained, network, loss)
    measured = {name: split.first_per_class(setting.measured_per_class) for name, split in data.items()}
    recorder = Recorder(
        measured,
        make_embedder(network, setting.normalization),
        loss,
        projections,
        steps_per_picture=steps_per_picture,
    )
    _make_trainer(setting, seed, trained, network, loss, projections, recorder).fit(setting.epochs)
    return recorder


def _make_loss(setting: Setting) -> CCP:
    base = Contrastive(
        positive_margin=setting.positive_margin,
        negative_margin=setting.negative_margin,
        normalization=setting.normalization,
    )
    return CCP(
        base,
        CLASSES,
        2,
        proxies_per_class=setting.proxies_per_class,
        pair_weight=setting.pair_weight,
        proxy_learning_rate_multiplier=setting.proxy_multiplier,
    )


def _make_projections(
    setting: Setting, seed: int, trained: Split, network: tf.keras.Model, loss: CCP
) -> AlternatingProjections:
    raw = make_embedder(network, "none")
    draws = OnePerClassSampler(trained.labels, seed, window=setting.pool_size).draws
    return AlternatingProjections(
        network.trainable_variables,
        loss.proxies,
        ProxyPool(draws, lambda rows: raw(trained.images[rows])),
        ProjectionOptions(
            pool_size=setting.pool_size,
            ccp_lambda=setting.coefficient,
            ccp_reset_rule="fixed",
            ccp_min_iterations=setting.epochs_per_instance,
            ccp_monitor="loss",
        ),
        seed=seed,
    )


def _make_trainer(
    setting: Setting,
    seed: int,
    trained: Split,
    network: tf.keras.Model,
    loss: CCP,
    projections: AlternatingProjections,
    recorder: Recorder,
) -> Trainer:
    groups = [
        VariableGroup(network.trainable_variables),
        VariableGroup(loss.trainable_variables, setting.proxy_multiplier),
    ]
    proximal = ProximalTerm(
        network.trainable_variables, projections.anchors, projections.proximal_coefficient
    )
    step = TrainStep(
        network,
        loss,
        OptimizerGroups(functools.partial(make_optimizer, "adam"), groups, setting.learning_rate),
        transforms=[proximal],
    )
    return Trainer(
        step,
        functools.partial(batches, trained, setting.samples_per_class, seed),
        TrainingOptions(steps_per_epoch=setting.steps_per_epoch, chunk_size=setting.steps_per_epoch),
        controllers=[projections],
        callbacks=[recorder],
    )
