"""Rules between options: what contradicts, what has no effect, what has to exist; imports no TensorFlow."""

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
from ccp_dml.losses import registry as losses
from ccp_dml.models.backbones import registry as backbones
from ccp_dml.options import Kind, Option, Options, options_of
from ccp_dml.training.options import OPTIMIZERS_OF_WHOLE_VARIABLES, GradientOptions


def check(config: ExperimentConfig, *, may_have_no_effect: Container[str] = ()) -> None:
    """Checks how values go together, then that cluster, data, backbone and weights exist.

    Args:
        config: any configuration.
        may_have_no_effect: names of flags that may be set without effect.

    Raises:
        ConfigError: names the flag or flags, what was found and what is expected.
    """
    check_flags(config, may_have_no_effect=may_have_no_effect)
    check_cluster(config)
    num_classes = check_data(config)
    check_backbone(config)
    complete = protocols.resolve(config)
    # How many classes a closed set has is known once the data is open.
    if config.split.closed_set == "off":
        for member in protocols.members(complete):
            protocols.split_classes(member.config.split, member.config.batches, num_classes)
    protocols.check_initial_weights(complete)


def check_flags(config: ExperimentConfig, *, may_have_no_effect: Container[str] = ()) -> None:
    """The part of `check` that looks at no files."""
    for problem in _contradictions(config):
        raise ConfigError(problem)
    check_pca(config)
    _check_metric("monitor", config.training.monitor, config)
    if config.projections.ccp_monitor not in (None, "loss"):
        _check_metric("ccp_monitor", config.projections.ccp_monitor, config)
    _check_loss(config)
    for declared, message in without_effect(config):
        if declared.name not in may_have_no_effect:
            raise ConfigError(message)


def without_effect(config: ExperimentConfig) -> Iterator[tuple[Option, str]]:
    """Options that have another value than their default but no effect, with a message each."""
    values = {declared.name: (declared, value) for declared, value in config.items()}
    for declared, value in values.values():
        if value == declared.default:
            continue
        for name, condition in declared.only_with.items():
            other, found = values[name]
            if _meets(condition, found):
                continue
            if isinstance(condition, Kind):
                expected = condition.expected
            else:
                known = [other.format(item) for item in condition if item is not None]
                expected = f"--{name}={' or '.join(known)}"
            yield (
                declared,
                (
                    f"--{declared.written(value)}: it does nothing with --{other.written(found)}; "
                    f"expected {expected}"
                ),
            )


def check_cluster(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the environment tells which of several workers this is."""
    if config.devices.strategy != "multi_worker":
        return
    if config.devices.cluster == "tf_config":
        check_tf_config(os.environ)
    if config.run.run_dir is None:
        raise ConfigError("--strategy=multi_worker needs --run_dir, the same on all workers; none was given")


def check_data(config: ExperimentConfig) -> int:
    """Returns the number of training classes; raises `ConfigError` unless the source images exist."""
    with as_user_errors():
        return catalog.check(config.source)


def check_pca(config: ExperimentConfig) -> None:
    """Raises `ConfigError` if a PCA has more components than there are dimensions."""
    dimensions, most = config.evaluation.pca_dim, config.model.embedding_size
    if dimensions is not None and dimensions > most:
        raise ConfigError(f"--pca_dim={dimensions}: expected at most --embedding_size={most}")


def check_backbone_name(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the backbone exists."""
    name = config.model.backbone
    if name not in backbones.BACKBONES:
        raise ConfigError(f"--backbone={name}: expected one of {', '.join(backbones.BACKBONES)}")


def check_backbone(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the backbone can be built with its options and weights."""
    check_backbone_name(config)
    model, size = config.model, config.images.image_size
    name, weights = model.backbone, model.backbone_weights
    spec = backbones.BACKBONES[name]
    try:
        backbones.check_options(name, model.backbone_options)
    except ValueError as error:
        raise ConfigError(f"--backbone_options={model.backbone_options}: {error}") from None
    if size is not None and size < spec.min_image_size:
        least = f"expected at least {spec.min_image_size} with --backbone={name}"
        raise ConfigError(f"--image_size={size}: {least}")
    if model.freeze_batch_norm and (weights or spec.default_weights) == backbones.RANDOM:
        raise ConfigError("--freeze_batch_norm: expected weights that are loaded; found random ones")
    try:
        backbones.check(name, weights)
    except ValueError as error:
        written = f"--backbone_weights={weights}" if weights else f"--backbone={name}"
        raise ConfigError(f"{written}: {error}") from None


def warnings(config: ExperimentConfig) -> tuple[str, ...]:
    """Sentences on valid options that make results incomparable."""
    found = []
    if protocols.monitor_split(config) == "test":
        conventional = config.split.protocol == CONVENTIONAL
        written = f"--protocol={CONVENTIONAL}" if conventional else "--monitor_split=test"
        found.append(
            f"{written} chooses the best epoch by the test classes: "
            "the result flatters the model and compares with no other"
        )
    if not config.source.check_counts:
        found.append(
            "--check_counts=false takes a part of a data set for the whole: "
            "the result compares with no published one"
        )
    if config.source.skip_bad_images and config.source.dataset != "image_folder":
        found.append(
            "--skip_bad_images may leave out images of a published data set: "
            "the result then compares with no published one"
        )
    return tuple(found)


def with_other_evaluation(
    config: ExperimentConfig,
    *,
    dataset: str | None = None,
    data_dir: str | None = None,
    prepared_dir: str | None = None,
    pca_dim: int | None = None,
) -> ExperimentConfig:
    """The configuration of a finished run with other test images or a PCA; None leaves a value as it is.

    Args:
        config: the run's, complete.
        dataset: the data set whose test images are scored.
        data_dir: folder of its source images; with another data set that of the run does not count.
        prepared_dir: folder of prepared data.
        pca_dim: dimensions that a PCA leaves.

    Raises:
        ConfigError: if a value cannot be used; the message names the flag.
        UserError: if the data is missing.
    """
    changes: dict[str, object] = {}
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
    for name, folder in (("data_dir", data_dir), ("prepared_dir", prepared_dir)):
        if folder is not None:
            changes[name] = os.path.abspath(os.path.expanduser(folder))
    if pca_dim is not None:
        changes["pca_dim"] = pca_dim
    evaluated = config.replace(**changes)
    check_pca(evaluated)
    if "dataset" in changes or "data_dir" in changes:
        check_data(evaluated)
    return evaluated


def _meets(condition: tuple[Any, ...] | Kind, value: Any) -> bool:
    return condition.holds(value) if isinstance(condition, Kind) else value in condition


def _check_loss(config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the loss exists and takes the loss flags that are given."""
    options, path = config.loss, config.loss.loss
    try:
        losses.parse(path)
    except ValueError as error:
        raise ConfigError(f"--loss={path}: " + str(error).removeprefix(f"loss {path!r}: ")) from None
    taken, normalizations = losses.parameters(path), losses.normalizations(path)
    if options.normalization not in (None, *normalizations):
        raise ConfigError(
            f"--normalization={options.normalization} contradicts --loss={path}: evaluation would measure "
            f"other distances than training, as mdr scales embeddings; expected {' or '.join(normalizations)}"
        )
    for declared in options_of(options):
        if declared.name in options.parameters and declared.name not in taken:
            written = declared.written(options.parameters[declared.name])
            raise ConfigError(f"--{written}: --{declared.name} is not an option of --loss={path}; remove it")
    if not config.uses_projections:
        for declared in _changed(config.projections):
            written = declared.written(getattr(config.projections, declared.name))
            raise ConfigError(f"--{written}: expected it with ccp/... as --loss; found --loss={path}")


def _changed(section: Options) -> list[Option]:
    return [
        declared for declared in options_of(section) if getattr(section, declared.name) != declared.default
    ]


def _contradictions(config: ExperimentConfig) -> Iterator[str]:
    """Pairs of flags that cannot both hold, a line each."""
    yield from _contradictions_of_data(config)
    yield from protocols.contradictions(config)
    yield from _contradictions_of_projections(config)
    flags = config.flags
    if flags.warm_up_learning_rate is not None and flags.warm_up_epochs == 0:
        yield f"--warm_up_learning_rate={flags.warm_up_learning_rate} needs --warm_up_epochs above 0"
    uses_averages = flags.ema_attraction or flags.ema_repulsion
    if flags.ema_decay != GradientOptions.ema_decay and not uses_averages:
        yield (
            f"--ema_decay={flags.ema_decay}: it does nothing without the averages; "
            "expected --ema_attraction or --ema_repulsion above 0"
        )
    if flags.shard_proxies and flags.jit_compile:
        yield (
            "--shard_proxies contradicts --jit_compile: XLA cannot compile the exchange between replicas "
            "inside the loss; expected --nojit_compile"
        )
    if flags.shard_proxies and flags.optimizer in OPTIMIZERS_OF_WHOLE_VARIABLES:
        yield (
            f"--shard_proxies contradicts --optimizer={flags.optimizer}, which takes norms of the whole "
            f"table of proxies; expected another one than {' and '.join(OPTIMIZERS_OF_WHOLE_VARIABLES)}"
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
            "--ccp_reset_rule=staleness contradicts --noccp_use_representative_proxy: "
            "expected another rule, as only proxies chosen from images can grow stale"
        )
    if flags.ccp_reset_rule == "staleness" and flags.pool_memory_steps:
        yield (
            f"--pool_memory_steps={flags.pool_memory_steps} contradicts --ccp_reset_rule=staleness: "
            "the memory holds embeddings of augmented images, which lie elsewhere from the start; expected 0 "
            "or another rule"
        )
    if config.uses_projections and flags.proxies_per_class == 0:
        yield f"--proxies_per_class=0 contradicts --loss={flags.loss}: ccp expects at least 1"


def _contradictions_of_data(config: ExperimentConfig) -> Iterator[str]:
    flags = config.flags
    for low, high in (("crop_area_min", "crop_area_max"), ("crop_aspect_min", "crop_aspect_max")):
        if getattr(flags, low) > getattr(flags, high):
            yield f"--{low}={getattr(flags, low)}: expected at most --{high}={getattr(flags, high)}"
    if flags.image_size and flags.test_shorter_side and flags.test_shorter_side < flags.image_size:
        shorter_side = f"--test_shorter_side={flags.test_shorter_side}"
        yield f"{shorter_side}: expected at least --image_size={flags.image_size}"
    for name in ("test_shorter_side", "image_size"):
        needed, prepared = getattr(flags, name), flags.prepared_shorter_side
        if prepared is not None and needed is not None and prepared < needed:
            yield f"--prepared_shorter_side={prepared}: expected at least --{name}={needed}"
    if flags.closed_set != "off":
        for name in ("protocol", "validation_fraction", "fold", "num_folds"):
            if getattr(flags, name) is not None:
                yield (
                    f"--{name}={getattr(flags, name)} contradicts --closed_set={flags.closed_set}, "
                    "which validates on images of every class: expected one of the two"
                )
    if flags.data_seed and flags.closed_set != "shuffled" and not flags.label_noise:
        yield f"--data_seed={flags.data_seed}: it does nothing without --closed_set or --label_noise"
    if flags.representative_lifetime and flags.samples_per_class < 2:
        yield (
            f"--samples_per_class={flags.samples_per_class}: expected at least 2 with "
            f"--representative_lifetime={flags.representative_lifetime}, the representative and another"
        )


def _check_metric(name: str, metric: str | None, config: ExperimentConfig) -> None:
    """Raises `ConfigError` unless the flag `name` has the name of a metric that is measured."""
    if metric in METRICS:
        return
    match = METRIC_AT_K.fullmatch(str(metric))
    if match is None:
        expected = ", ".join((*METRICS, "recall_at_K, precision_at_K or map_at_K"))
        raise ConfigError(f"--{name}={metric}: expected one of {expected}")
    if int(match[2]) not in getattr(config.evaluation, match[1]):
        raise ConfigError(f"--{name}={metric}: expected {match[2]} to be listed in --{match[1]}")
