"""What makes a configuration valid, beyond the range of each flag; imports neither TensorFlow nor data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ccp_dml.config import protocols, sharding, useless_flags
from ccp_dml.config.class_split import split_classes
from ccp_dml.config.data_source import data_source
from ccp_dml.config.fields import Flag, flags_of
from ccp_dml.config.sections import DataConfig, TrainingConfig
from ccp_dml.data import catalog
from ccp_dml.distributed.cluster import check_tf_config
from ccp_dml.errors import ConfigError, as_user_errors
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones

if TYPE_CHECKING:
    from ccp_dml.config.experiment_config import ExperimentConfig

METRICS = ("map_at_r", "r_precision", "precision_at_1")
_METRIC_AT_K = re.compile(r"(recall|precision|map)_at_([1-9][0-9]*)")


def check_values(items: Iterable[tuple[Flag, Any]]) -> None:
    """Every value by itself: its type and range."""
    for flag, value in items:
        try:
            flag.check(value)
        except ValueError as error:
            raise ConfigError(f"{flag.written(value)}: {error}") from None


def check_combinations(config: ExperimentConfig) -> None:
    """Values against each other."""
    for problem in _contradictions(config):
        raise ConfigError(problem)
    check_pca(config)
    _check_metric("monitor", config.training.monitor, config)
    if config.projection.ccp_monitor not in (None, "loss"):
        _check_metric("ccp_monitor", config.projection.ccp_monitor, config)
    useless_flags.check(config)


def check_cluster(config: ExperimentConfig) -> None:
    """The environment says which worker this is, if there are several."""
    if config.run.strategy != "multi_worker":
        return
    if config.run.cluster == "tf_config":
        check_tf_config(os.environ)
    if config.run.run_dir is None:
        raise ConfigError("--strategy=multi_worker needs --run_dir, the same on all workers; none was given")


def check_pca(config: ExperimentConfig) -> None:
    """A PCA has no more components than there are dimensions."""
    dimensions, most = config.evaluation.pca_dim, config.model.embedding_size
    if dimensions is not None and dimensions > most:
        raise ConfigError(f"--pca_dim={dimensions}: expected at most --embedding_size={most}")


def check_loss(config: ExperimentConfig) -> None:
    """The loss exists and takes the loss flags that are given."""
    path = config.loss.loss
    try:
        losses.parse(path)
    except ValueError as error:
        raise ConfigError(f"--loss={path}: " + str(error).removeprefix(f"loss {path!r}: ")) from None
    taken, normalizations = losses.parameters(path), losses.normalizations(path)
    if config.loss.normalization not in (None, *normalizations):
        raise ConfigError(
            f"--normalization={config.loss.normalization} contradicts --loss={path}: it would be evaluated "
            f"in another way than trained, as mdr scales embeddings; expected {' or '.join(normalizations)}"
        )
    for flag in flags_of(config.loss):
        value = getattr(config.loss, flag.name)
        if flag.optional and value is not None and flag.name not in taken:
            raise ConfigError(
                f"{flag.written(value)}: expected it to be left out, as no loss in --loss={path} takes it"
            )
    if not config.uses_projections:
        for flag in flags_of(config.projection):
            value = getattr(config.projection, flag.name)
            if value != flag.default:
                raise ConfigError(
                    f"{flag.written(value)}: expected it with ccp/... as --loss; found --loss={path}"
                )
    for problem in sharding.contradictions(config):
        raise ConfigError(problem)


def check_backbone_name(config: ExperimentConfig) -> None:
    """The backbone exists."""
    name = config.model.backbone
    if name not in backbones.BACKBONES:
        expected = ", ".join(backbones.BACKBONES)
        raise ConfigError(f"--backbone={name}: expected one of {expected}")


def check_backbone(config: ExperimentConfig) -> None:
    """The backbone can be built with these options and weights."""
    model = config.model
    name, weights = model.backbone, model.backbone_weights
    known = name in backbones.BACKBONES
    if known:
        _check_backbone_flags(config)
    try:
        backbones.check(name, weights)
    except ValueError as error:
        flag = f"--backbone_weights={weights}" if weights and known else f"--backbone={name}"
        raise ConfigError(f"{flag}: {error}") from None


def _check_backbone_flags(config: ExperimentConfig) -> None:
    """The flags that depend on a backbone, which exists."""
    model, size = config.model, config.data.image_size
    spec = backbones.BACKBONES[model.backbone]
    try:
        backbones.check_options(model.backbone, model.backbone_options)
    except ValueError as error:
        raise ConfigError(f"--backbone_options={model.backbone_options}: {error}") from None
    if size is not None and size < spec.min_image_size:
        least = f"expected at least {spec.min_image_size} with --backbone={model.backbone}"
        raise ConfigError(f"--image_size={size}: {least}")
    if model.freeze_batch_norm and (model.backbone_weights or spec.default_weights) == backbones.RANDOM:
        raise ConfigError("--freeze_batch_norm: expected weights that are loaded; found random ones")


def check_data(config: ExperimentConfig) -> int:
    """The data set exists, and its source images are where the flags say; the number of training classes."""
    with as_user_errors():
        return catalog.check(data_source(config.data))


def check_classes(config: ExperimentConfig, num_classes: int) -> None:
    """The training classes are enough for validation and for a batch; all else is checked before.

    How many classes a closed set has is known once the data is open.
    """
    if config.data.closed_set == "off":
        for member in config.resolve().members:
            split_classes(member.config.data, num_classes)


def _contradictions(config: ExperimentConfig) -> Iterator[str]:
    data, projection, training = config.data, config.projection, config.training
    yield from _contradictions_of_data(data)
    yield from protocols.contradictions(config)
    least, most = projection.ccp_min_iterations, projection.ccp_max_iterations
    if most is not None and most < least:
        yield f"--ccp_max_iterations={most}: expected at least --ccp_min_iterations={least}"
    if projection.ccp_step_at_batch and projection.ccp_monitor not in (None, "loss"):
        yield f"--ccp_monitor={projection.ccp_monitor}: expected loss with --ccp_step_at_batch"
    if projection.ccp_reset_rule == "staleness" and not projection.ccp_use_representative_proxy:
        yield (
            "--ccp_reset_rule=staleness contradicts --noccp_use_representative_proxy: "
            "expected another rule, as only proxies chosen from images can grow stale"
        )
    if projection.ccp_reset_rule == "staleness" and projection.pool_memory_steps:
        yield (
            f"--pool_memory_steps={projection.pool_memory_steps} contradicts --ccp_reset_rule=staleness: "
            "what is remembered is of augmented images, which lie elsewhere from the start; expected 0 or "
            "another rule"
        )
    if training.warm_up_learning_rate is not None and training.warm_up_epochs == 0:
        yield f"--warm_up_learning_rate={training.warm_up_learning_rate} needs --warm_up_epochs above 0"
    if (
        training.ema_decay != TrainingConfig.ema_decay
        and training.ema_attraction == training.ema_repulsion == 0
    ):
        yield (
            f"--ema_decay={training.ema_decay}: it does nothing without the averages; "
            "expected --ema_attraction or --ema_repulsion above 0"
        )
    if config.uses_projections and config.loss.proxies_per_class == 0:
        yield f"--proxies_per_class=0 contradicts --loss={config.loss.loss}: ccp expects at least 1"


def _contradictions_of_data(data: DataConfig) -> Iterator[str]:
    for low, high in (("crop_area_min", "crop_area_max"), ("crop_aspect_min", "crop_aspect_max")):
        if getattr(data, low) > getattr(data, high):
            yield f"--{low}={getattr(data, low)}: expected at most --{high}={getattr(data, high)}"
    if data.image_size and data.test_shorter_side and data.test_shorter_side < data.image_size:
        shorter_side = f"--test_shorter_side={data.test_shorter_side}"
        yield f"{shorter_side}: expected at least --image_size={data.image_size}"
    for name in ("test_shorter_side", "image_size"):
        needed, prepared = getattr(data, name), data.prepared_shorter_side
        if prepared is not None and needed is not None and prepared < needed:
            yield f"--prepared_shorter_side={prepared}: expected at least --{name}={needed}"
    if data.closed_set != "off":
        for name in ("protocol", "validation_fraction", "fold", "num_folds"):
            if getattr(data, name) is not None:
                yield (
                    f"--{name}={getattr(data, name)} contradicts --closed_set={data.closed_set}, "
                    "which validates on images of every class: expected one of the two"
                )
    if data.data_seed != DataConfig.data_seed and data.closed_set != "shuffled" and not data.label_noise:
        yield f"--data_seed={data.data_seed}: it does nothing without --closed_set or --label_noise"
    lifetime = f"--representative_lifetime={data.representative_lifetime}"
    if data.representative_lifetime and data.samples_per_class < 2:
        yield (
            f"--samples_per_class={data.samples_per_class}: expected at least 2 with {lifetime}, "
            "the representative and another"
        )


def _check_metric(name: str, metric: str | None, config: ExperimentConfig) -> None:
    """The flag `name` has the name of a metric that is measured."""
    if metric in METRICS:
        return
    match = _METRIC_AT_K.fullmatch(str(metric))
    if match is None:
        expected = ", ".join((*METRICS, "recall_at_K, precision_at_K or map_at_K"))
        raise ConfigError(f"--{name}={metric}: expected one of {expected}")
    cutoffs, k = f"{match[1]}_at", int(match[2])
    if k not in getattr(config.evaluation, cutoffs):
        raise ConfigError(f"--{name}={metric}: expected {k} to be listed in --{cutoffs}")
