"""The flags of the optimisation, and of when it ends."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import Change, flag
from ccp_dml.config.values import Choice, Integer, Number, Switch, SwitchedChoice, Text

OPTIMIZERS_WITH_MOMENTUM = ("rmsprop", "sgd")
OPTIMIZERS_WITH_MOMENTS = ("adam", "adamax", "adamw", "lamb", "lion", "nadam", "radam")
# They do not update each component by itself.
OPTIMIZERS_OF_WHOLE_TABLES = ("adafactor", "lamb")
OPTIMIZERS = tuple(
    sorted((*OPTIMIZERS_WITH_MOMENTUM, *OPTIMIZERS_WITH_MOMENTS, "adadelta", "adafactor", "adagrad", "ftrl"))
)


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Optimisation and when it ends."""

    steps_per_epoch: int = flag(50, Integer(1), "Steps between two validations.")
    max_epochs: int = flag(
        100, Integer(0), "Epochs at most; 0 evaluates and exports the initial model.", Change.LARGER
    )
    patience: int = flag(15, Integer(0), "Epochs without improvement that end the run; 0: never.")
    monitor: str = flag(
        "map_at_r",
        Text("the name of a metric"),
        "Metric watched: map_at_r, r_precision, precision_at_1, recall_at_K.",
    )
    monitor_split: str | None = flag(
        None,
        Choice(("validation", "test")),
        "Classes on which it is measured; test flatters the result (default: validation; test with "
        "--protocol=conventional).",
    )
    restore_best: bool = flag(True, Switch(), "Evaluate and export the best epoch's weights, not the last's.")
    optimizer: str = flag(
        "adam", Choice(OPTIMIZERS), "Optimizer: those of Keras, lamb, and radam (rectified Adam)."
    )
    learning_rate: float = flag(1e-4, Number(above=0), "Learning rate.")
    momentum: float = flag(0.9, Number(low=0, below=1), "Momentum of sgd and rmsprop.")
    beta_1: float = flag(0.9, Number(low=0, below=1), "Decay of the first moment of adam and its kin.")
    beta_2: float = flag(0.999, Number(low=0, below=1), "Decay of the second moment of adam and its kin.")
    learning_rate_schedule: str = flag(
        "constant", Choice(("constant", "exponential", "plateau")), "How the learning rate changes."
    )
    decay_rate: float = flag(0.96, Number(above=0, high=1), "Factor of the exponential schedule.")
    decay_epochs: float = flag(
        1.0, Number(above=0), "Epochs in which the exponential schedule applies it once."
    )
    plateau_factor: float = flag(0.5, Number(above=0, below=1), "Factor of the plateau schedule.")
    plateau_patience: int = flag(4, Integer(1), "Epochs without improvement before it applies.")
    min_learning_rate: float = flag(1e-6, Number(low=0), "Where the plateau schedule ends.")
    warm_up_epochs: float = flag(
        0.0, Number(low=0), "Epochs at first in which the backbone is frozen, such as 0.5."
    )
    warm_up_learning_rate: float | None = flag(
        None, Number(above=0), "Learning rate of these epochs (default: --learning_rate)."
    )
    weight_decay: float = flag(1e-4, Number(low=0), "Weight decay; spares batch normalisation.")
    ema_attraction: float = flag(
        0.0, Number(low=0), "Pull of the weights to their moving averages; the original's value is 1e-7."
    )
    ema_repulsion: float = flag(
        0.0, Number(low=0), "Push off these averages, per component; the original's value is 1e-5."
    )
    ema_decay: float = flag(0.99, Number(low=0, below=1), "Share of an average that a step keeps.")
    clip_norm: float = flag(10.0, Number(low=0), "Clip gradients by their global norm; 0: do not.")
    clip_value: float = flag(10.0, Number(low=0), "Then clip each component; 0: do not.")
    mixed_precision: str = flag(
        "float32",
        SwitchedChoice(("float32", "mixed_float16", "mixed_bfloat16"), on="mixed_bfloat16", off="float32"),
        "Precision of the layers; alone it means mixed_bfloat16.",
    )
    jit_compile: bool = flag(False, Switch(), "Compile the training step with XLA.")
    nan_policy: str = flag(
        "stop",
        Choice(("stop", "skip")),
        "A loss or gradient that is not finite ends the run, or leaves the step out (10 in a row end it).",
        Change.FREE,
    )
    deterministic: bool | None = flag(
        None, Switch(), "Same bits from the same seed, flags and computer (default: where there is no GPU)."
    )
    chunk_size: int | None = flag(
        None, Integer(1), "Steps that run inside one call of TensorFlow (default: the trainer's choice)."
    )
