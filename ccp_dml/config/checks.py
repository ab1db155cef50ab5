"""Rules between options: contradictions, options without effect, missing files; imports no TensorFlow.

The range of a single option is not checked here: a value out of range is an error when the options are made.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from typing import Any

from ccp_dml.config import protocols
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.data import catalog
from ccp_dml.data.options import CONVENTIONAL
from ccp_dml.distributed.cluster import check_tf_config
from ccp_dml.errors import ConfigError, as_user_errors
from ccp_dml.evaluation.options import METRIC_AT_K, METRICS
from ccp_dml.kinds import Kind, PathText, format_size, height_and_width
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones
from ccp_dml.options import Condition, Option, options_of
from ccp_dml.training.options import OPTIMIZERS_OF_WHOLE_VARIABLES, GradientOptions


def check(config: ExperimentConfig, *, may_have_no_effect: Container[str] = ()) -> None:
    """Checks that the options fit together, and that cluster, data, backbone and weights exist.

    Args:
        config: any configuration.
        may_have_no_effect: names of options that may have no effect, unlike all others that are set.

    Raises:
        ConfigError: if an option is wrong; the message names it.
        UserError: if the data cannot be used.
    """
    check_flags(config, may_have_no_effect=may_have_no_effect)
    check_cluster(config)
    num_classes = check_data(config)
    check_backbone(config)
    complete = protocols.resolve(config)
    # The number of classes of a closed set is known only after the data is read.
    if config.split.closed_set == "off":
        for member in protocols.members(complete):
            protocols.split_classes(
                member.config.split,
                member.config.batches,
                num_classes,
                has_validation=catalog.has_validation(config.source),
            )
    protocols.check_initial_weights(complete)


# What to use in place of an option that has no effect.
_INSTEAD = {"batch_size": ", or --classes_per_batch and --samples_per_class, whose product is the batch size"}


def check_flags(config: ExperimentConfig, *, may_have_no_effect: Container[str] = ()) -> None:
    """Does the part of `check` that reads neither files nor the environment."""
    for problem in _contradictions(config):
        raise ConfigError(problem)
    check_pca(config)
    _check_metric("monitor", config.training.monitor, config)
    if config.projections.ccp_monitor not in (None, "loss"):
        _check_metric("ccp_monitor", config.projections.ccp_monitor, config)
    _check_loss(config)
    for name, message in without_effect(config):
        if name not in may_have_no_effect:
            raise ConfigError(message)


def without_effect(config: ExperimentConfig) -> Iterator[tuple[str, str]]:
    """Names of the options that are not at their default but have no effect, with a message each."""
    flags, options = config.flags, {declared.name: declared for declared, _ in config.items()}
    of_projections = {declared.name for declared in options_of(config.projections)}
    for declared, value in config.items():
        if value == declared.default:
            continue
        written = f"--{declared.written(value)}: has no effect with "
        for name, condition in declared.only_with.items():
            other, found = options[name], getattr(flags, name)
            if not _meets(condition, found):
                yield (
                    declared.name,
                    f"{written}--{other.written(found)}; expected {_expected(other, condition)}"
                    f"{_INSTEAD.get(declared.name, '')}",
                )
        if declared.name in of_projections and not config.uses_projections:
            yield declared.name, f"{written}--loss={flags.loss}; expected ccp/... as --loss"
    for name in sorted(config.loss.parameters.keys() - losses.parameters(flags.loss)):
        written = options[name].written(config.loss.parameters[name])
        yield name, f"--{written}: --{name} is not an option of --loss={flags.loss}; remove it"
    if flags.warm_up_learning_rate is not None and not flags.warm_up_epochs:
        written = f"--warm_up_learning_rate={flags.warm_up_learning_rate:g}"
        yield "warm_up_learning_rate", f"{written}: has no effect; expected --warm_up_epochs above 0"
    if flags.ema_decay != GradientOptions.ema_decay and not (flags.ema_attraction or flags.ema_repulsion):
        expected = "expected --ema_attraction or --ema_repulsion above 0"
        yield "ema_decay", f"--ema_decay={flags.ema_decay:g}: has no effect; {expected}"
    if flags.data_seed and flags.closed_set != "shuffled" and not flags.label_noise:
        expected = "expected --closed_set=shuffled or --label_noise above 0"
        yield "data_seed", f"--data_seed={flags.data_seed}: has no effect; {expected}"


def check_cluster(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the environment describes the cluster and this worker."""
    if config.devices.strategy != "multi_worker":
        return
    if config.devices.cluster == "tf_config":
        check_tf_config(os.environ)
    if config.run.run_dir is None:
        raise ConfigError(
            "--strategy=multi_worker: there is no --run_dir; expected one, the same on all workers"
        )


def check_data(config: ExperimentConfig) -> int:
    """Returns the number of training classes; raises `UserError` unless the source images exist."""
    with as_user_errors():
        return catalog.check(config.source)


def check_pca(config: ExperimentConfig) -> None:
    """Raises `ConfigError` if the PCA has more components than embeddings have dimensions."""
    dimensions, most = config.evaluation.pca_dim, config.model.embedding_size
    if dimensions is not None and dimensions > most:
        raise ConfigError(f"--pca_dim={dimensions}: expected at most --embedding_size={most}")


def check_backbone_name(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the backbone exists."""
    name = config.model.backbone
    try:
        backbones.resolve(name)
    except ValueError as error:
        raise ConfigError(f"--backbone={name}: {error}") from None


def check_backbone(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the backbone can be built with its options, image size and weights."""
    check_backbone_name(config)
    model, size = config.model, config.images.image_size
    name, weights = model.backbone, model.backbone_weights
    spec = backbones.resolve(name)
    try:
        backbones.check_options(name, model.backbone_options)
    except ValueError as error:
        raise ConfigError(f"--backbone_options={model.backbone_options}: {error}") from None
    if size is not None and min(height_and_width(size)) < spec.min_image_size:
        least = f"expected at least {spec.min_image_size} with --backbone={name}"
        raise ConfigError(f"--image_size={format_size(size)}: {least}")
    if model.freeze_batch_norm and (weights or spec.default_weights) == backbones.RANDOM:
        raise ConfigError("--freeze_batch_norm: the weights are random; expected other --backbone_weights")
    try:
        backbones.check(name, weights)
    except ValueError as error:
        written = f"--backbone_weights={weights}" if weights else f"--backbone={name}"
        raise ConfigError(f"{written}: {error}") from None


def warnings(config: ExperimentConfig) -> tuple[str, ...]:
    """Warnings about valid options that make results incomparable."""
    found = []
    if protocols.monitor_split(config) == "test":
        conventional = config.split.protocol == CONVENTIONAL
        written = f"--protocol={CONVENTIONAL}" if conventional else "--monitor_split=test"
        found.append(
            f"{written} chooses the best epoch by the test classes: "
            "the result flatters the model and cannot be compared with others"
        )
    if not config.source.check_counts:
        found.append(
            "--check_counts=false accepts a part of a data set: "
            "the result cannot be compared with published ones"
        )
    if config.source.skip_bad_images and config.source.dataset != "image_folder":
        found.append(
            "--skip_bad_images may leave out images of a published data set: "
            "the result then cannot be compared with published ones"
        )
    return (*found, *_unused_source(config))


def with_other_evaluation(
    config: ExperimentConfig,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    prepared_dir: str | None = None,
    pca_dim: int | None = None,
) -> ExperimentConfig:
    """Makes the configuration of a finished run with other test images or a PCA.

    Args:
        config: complete configuration of the run.
        dataset: data set whose test images are scored; None: that of the run.
        data_dir: folder of its source images; None: that of the run if the data set is the same, else none.
            Of an image_folder without a manifest, all classes are scored.
        prepared_dir: folder of prepared data; None: that of the run.
        pca_dim: number of dimensions that the PCA keeps; None: that of the run.

    Raises:
        ConfigError: if a value cannot be used; the message names the flag.
        UserError: if the data is missing.
    """
    changes: dict[str, object] = {}
    if dataset is None and data_dir is not None and not catalog.has_source(config.source.dataset):
        dataset = "image_folder"
    if dataset is not None and dataset != config.source.dataset:
        changes = {
            "dataset": dataset,
            "data_dir": None,
            "download": False,
            "closed_set": "off",
            "check_counts": config.source.check_counts or not catalog.is_published(dataset),
            "crop_to_box": False,
            "skip_bad_images": False,
        }
    if data_dir is not None and (dataset or config.source.dataset) == "image_folder":
        changes |= {"train_fraction": 0.0, "class_order_seed": None, "closed_set": "off"}
    for name, folder in (("data_dir", data_dir), ("prepared_dir", prepared_dir)):
        if folder is not None:
            changes[name] = os.path.abspath(PathText("a folder").normalized(folder))
    if pca_dim is not None:
        changes["pca_dim"] = pca_dim
    evaluated = config.replace(**changes)
    check_pca(evaluated)
    for message in _unused_source(evaluated):
        raise ConfigError(message)
    if "dataset" in changes or "data_dir" in changes:
        check_data(evaluated)
    return evaluated


def _unused_source(config: ExperimentConfig) -> Iterator[str]:
    """A message if the data set is not read from the folder of images that is given."""
    source = config.source
    if source.data_dir is not None and not catalog.has_source(source.dataset):
        yield (
            f"--data_dir={source.data_dir}: has no effect with --dataset={source.dataset}; "
            "expected --dataset=image_folder, or another data set that is read from a folder"
        )


def _meets(condition: Condition, value: Any) -> bool:
    return condition.holds(value) if isinstance(condition, Kind) else value in condition


def _expected(declared: Option, condition: Condition) -> str:
    """A phrase for the values of an option that meet a condition."""
    if isinstance(condition, Kind):
        return f"--{declared.name} to be {condition.expected}"
    return f"--{declared.name}={' or '.join(declared.format(item) for item in condition if item is not None)}"


def _check_loss(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the loss exists and has the parameters that are given."""
    options, path = config.loss, config.loss.loss
    try:
        losses.parse(path)
    except ValueError as error:
        raise ConfigError(f"--loss={path}: " + str(error).removeprefix(f"loss {path!r}: ")) from None
    normalizations = losses.normalizations(path)
    if options.normalization not in (None, *normalizations):
        raise ConfigError(
            f"--normalization={options.normalization}: contradicts --loss={path}, as mdr scales embeddings "
            "and evaluation would measure other distances than training; "
            f"expected {' or '.join(normalizations)}"
        )


def _contradictions(config: ExperimentConfig) -> Iterator[str]:
    """Messages on flags that cannot be used together."""
    yield from _contradictions_of_data(config)
    yield from protocols.contradictions(config)
    yield from _contradictions_of_projections(config)
    flags = config.flags
    if flags.shard_proxies and flags.jit_compile:
        yield (
            "--shard_proxies: contradicts --jit_compile, as XLA cannot compile the exchange between replicas "
            "inside the loss; expected --nojit_compile"
        )
    if flags.shard_proxies and flags.optimizer in OPTIMIZERS_OF_WHOLE_VARIABLES:
        yield (
            f"--shard_proxies: contradicts --optimizer={flags.optimizer}, which takes norms of the whole "
            f"table of proxies; expected any other than {' and '.join(OPTIMIZERS_OF_WHOLE_VARIABLES)}"
        )


def _contradictions_of_projections(config: ExperimentConfig) -> Iterator[str]:
    flags = config.flags
    least, most = flags.ccp_min_iterations, flags.ccp_max_iterations
    if most is not None and most < least:
        yield f"--ccp_max_iterations={most}: expected at least --ccp_min_iterations={least}"
    if flags.ccp_step_at_batch and flags.ccp_monitor not in (None, "loss"):
        yield f"--ccp_monitor={flags.ccp_monitor}: expected loss with --ccp_step_at_batch"
    if flags.ccp_reset_rule == "staleness" and not flags.ccp_use_representative_proxy:
        yield (
            "--ccp_reset_rule=staleness: contradicts --noccp_use_representative_proxy, as only proxies "
            "chosen from images can grow stale; expected another rule"
        )
    if flags.ccp_reset_rule == "staleness" and flags.pool_memory_steps:
        yield (
            f"--pool_memory_steps={flags.pool_memory_steps}: contradicts --ccp_reset_rule=staleness, as the "
            "memory holds embeddings of augmented images, which differ from the start; expected 0 or another "
            "rule"
        )
    if config.uses_projections and flags.proxies_per_class == 0:
        yield f"--proxies_per_class=0: contradicts --loss={flags.loss}; expected at least 1 with ccp"


def _contradictions_of_data(config: ExperimentConfig) -> Iterator[str]:
    flags = config.flags
    for low, high in (("crop_area_min", "crop_area_max"), ("crop_aspect_min", "crop_aspect_max")):
        if getattr(flags, low) > getattr(flags, high):
            yield f"--{low}={getattr(flags, low)}: expected at most --{high}={getattr(flags, high)}"
    smaller, written = None, f"--image_size={format_size(flags.image_size or 0)}"
    if flags.image_size is not None:
        smaller = min(height_and_width(flags.image_size))
        written = written if smaller == flags.image_size else f"{smaller}, the smaller side of {written}"
    shorter_side, prepared = flags.test_shorter_side, flags.prepared_shorter_side
    if smaller and shorter_side and shorter_side < smaller:
        yield f"--test_shorter_side={shorter_side}: expected at least {written}"
    for needed, least in ((shorter_side, f"--test_shorter_side={shorter_side}"), (smaller, written)):
        if prepared is not None and needed is not None and prepared < needed:
            yield f"--prepared_shorter_side={prepared}: expected at least {least}"
    if flags.closed_set != "off":
        for name in ("protocol", "validation_fraction", "fold", "num_folds"):
            if getattr(flags, name) is not None:
                yield (
                    f"--{name}={getattr(flags, name)}: contradicts --closed_set={flags.closed_set}, "
                    "which validates on images of every class; expected one of the two"
                )
    if flags.representative_lifetime and flags.samples_per_class < 2:
        yield (
            f"--samples_per_class={flags.samples_per_class}: expected at least 2, the representative and "
            f"another image, with --representative_lifetime={flags.representative_lifetime}"
        )


def _check_metric(name: str, metric: str | None, config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless `metric`, the value of the flag `name`, is a metric that is measured."""
    if metric in METRICS:
        return
    match = METRIC_AT_K.fullmatch(str(metric))
    if match is None:
        expected = ", ".join((*METRICS, "recall_at_K, precision_at_K or map_at_K"))
        raise ConfigError(f"--{name}={metric}: expected one of {expected}")
    if int(match[2]) not in getattr(config.evaluation, match[1]):
        raise ConfigError(f"--{name}={metric}: expected {match[2]} to be listed in --{match[1]}")
