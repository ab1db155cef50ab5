"""The options of training: optimizer, gradients, the loop, checkpoints."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, Integer, Number, Switch, Text
from ccp_dml.options import Change, Options, option

OPTIMIZERS_WITH_MOMENTUM = ("rmsprop", "sgd")
OPTIMIZERS_WITH_MOMENTS = ("adam", "adamax", "adamw", "lamb", "lion", "nadam", "radam")
# Their update of a component depends on all components of the variable.
OPTIMIZERS_OF_WHOLE_VARIABLES = ("adafactor", "lamb")
OPTIMIZERS = tuple(
    sorted((*OPTIMIZERS_WITH_MOMENTUM, *OPTIMIZERS_WITH_MOMENTS, "adadelta", "adafactor", "adagrad", "ftrl"))
)
DEFAULT_MONITOR = "map_at_r"

_DECAY = Number(low=0, below=1)
_WITH_MOMENTS = {"optimizer": OPTIMIZERS_WITH_MOMENTS}
_EXPONENTIAL = {"learning_rate_schedule": ("exponential",)}
_PLATEAU = {"learning_rate_schedule": ("plateau",)}


@dataclasses.dataclass(frozen=True)
class OptimizerOptions(Options):
    """The optimizer and its learning rate."""

    optimizer: str = option(
        "adam", Choice(OPTIMIZERS), "Optimizer: those of Keras, lamb, and radam (rectified Adam)."
    )
    learning_rate: float = option(1e-4, Number(above=0), "Learning rate.")
    backbone_learning_rate_multiplier: float = option(
        1.0, Number(low=0), "Factor on the learning rate of the backbone; 0 keeps it as it is."
    )
    momentum: float = option(
        0.9, _DECAY, "Momentum of sgd and rmsprop.", only_with={"optimizer": OPTIMIZERS_WITH_MOMENTUM}
    )
    beta_1: float = option(
        0.9, _DECAY, "Decay of the first moment of adam and its variants.", only_with=_WITH_MOMENTS
    )
    beta_2: float = option(
        0.999, _DECAY, "Decay of the second moment of adam and its variants.", only_with=_WITH_MOMENTS
    )
    learning_rate_schedule: str = option(
        "constant", Choice(("constant", "exponential", "plateau")), "Schedule of the learning rate."
    )
    decay_rate: float = option(
        0.96, Number(above=0, high=1), "Factor of the exponential schedule.", only_with=_EXPONENTIAL
    )
    decay_epochs: float = option(
        1.0,
        Number(above=0),
        "Epochs after which the exponential schedule has applied --decay_rate once.",
        only_with=_EXPONENTIAL,
    )
    plateau_factor: float = option(
        0.5, Number(above=0, below=1), "Factor of the plateau schedule.", only_with=_PLATEAU
    )
    plateau_patience: int = option(
        4,
        Integer(1),
        "Epochs without improvement before the plateau schedule reduces the rate.",
        only_with=_PLATEAU,
    )
    min_learning_rate: float = option(
        1e-6, Number(low=0), "Smallest rate of the plateau schedule.", only_with=_PLATEAU
    )
    warm_up_epochs: float = option(
        0.0, Number(low=0), "Number of first epochs with a frozen backbone, such as 0.5."
    )
    warm_up_learning_rate: float | None = option(
        None, Number(above=0), "Learning rate of the warm-up (default: --learning_rate)."
    )


@dataclasses.dataclass(frozen=True)
class GradientOptions(Options):
    """Transforms of the gradients."""

    weight_decay: float = option(1e-4, Number(low=0), "Weight decay, except for batch normalisation.")
    ema_attraction: float = option(
        0.0, Number(low=0), "Attraction of the weights to their moving averages; the original uses 1e-7."
    )
    ema_repulsion: float = option(
        0.0,
        Number(low=0),
        "Repulsion of the weights from these averages, per component; the original uses 1e-5.",
    )
    ema_decay: float = option(0.99, _DECAY, "Share of a moving average that a step keeps.")
    clip_norm: float = option(10.0, Number(low=0), "Largest global norm of the gradients; 0 for no clipping.")
    clip_value: float = option(
        10.0, Number(low=0), "Largest magnitude of a component, clipped after the norm; 0 for no clipping."
    )


@dataclasses.dataclass(frozen=True)
class TrainingOptions(Options):
    """The training loop and its end."""

    steps_per_epoch: int = option(50, Integer(1), "Steps between two validations.")
    max_epochs: int = option(
        100,
        Integer(0),
        "Largest number of epochs; a larger one continues a finished run; 0 exports the initial model.",
        Change.LARGER,
    )
    patience: int = option(15, Integer(0), "Epochs without improvement that end the run; 0 for never.")
    monitor: str = option(
        DEFAULT_MONITOR,
        Text("the name of a metric"),
        "Monitored metric: map_at_r, r_precision, precision_at_1 or recall_at_K.",
    )
    monitor_split: str | None = option(
        None,
        Choice(("validation", "test")),
        "Classes on which the metric is monitored; test overestimates the result (default: validation; test "
        "with --protocol=conventional).",
    )
    restore_best: bool = option(
        True, Switch(), "Evaluate and export the weights of the best epoch instead of the last."
    )
    mixed_precision: str = option(
        "float32",
        Choice(("float32", "mixed_float16", "mixed_bfloat16"), on="mixed_bfloat16", off="float32"),
        "Precision of the layers; without a value, mixed_bfloat16.",
    )
    jit_compile: bool = option(False, Switch(), "Compile the training step with XLA.")
    nan_policy: str = option(
        "stop",
        Choice(("stop", "skip")),
        "Stop at a loss or gradient that is not finite, or skip such steps (10 in a row stop the run).",
        Change.FREE,
    )
    deterministic: bool | None = option(
        None, Switch(), "Equal bits from equal seed, flags and computer (default: without a GPU)."
    )
    chunk_size: int = option(
        10,
        Integer(1),
        "Steps in one call of a TensorFlow function.",
        only_with={"ccp_step_at_batch": (False,)},
    )


@dataclasses.dataclass(frozen=True)
class CheckpointOptions(Options):
    """Saving and keeping of checkpoints."""

    checkpoint_keep: int = option(
        2,
        Integer(1),
        "Number of last checkpoints to keep, in addition to that of the best epoch.",
        Change.FREE,
    )
    checkpoint_steps: int = option(
        0, Integer(0), "Steps after which a checkpoint is saved within an epoch; 0 for none.", Change.FREE
    )
    checkpoint_minutes: float = option(
        10.0,
        Number(low=0),
        "Minutes after which a checkpoint is saved within an epoch; 0 for none.",
        Change.FREE,
    )
