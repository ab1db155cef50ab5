"""Time of a training step in the loop, against the bare forward and backward pass of the same batch.

    python -m benchmarks.step.run                     # about ten minutes; continues where it was stopped
    python -m benchmarks.step.run --sections emoji --again
    python -m benchmarks.step.run --quick             # each row of `emoji` once

The floor is a `tf.function` of the model in training mode, the base loss and the gradients of all weights;
the row below it adds Adam's update. The loop is `Trainer.fit` for one epoch of a few steps with callbacks and
logs: with the base loss, weight decay and clipping, and with CCP, which adds proxies and the proximal term.
`emoji` is efficientnet_lite0 on images of 64 px; `paper` is bn_inception on images of 227 px; `variants` is a
small ResNet with XLA and mixed precision, whose floor is float32 without XLA (XLA's depthwise convolutions
are useless on a CPU).

No image is decoded: a batch of noise is repeated. All rows take turns; a ratio is the median of the ratios
within a turn, of elapsed time and of processor time, which a busy machine disturbs less. The loop has to be
traced once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import tensorflow as tf

from benchmarks.common import results
from benchmarks.common.measuring import Seconds, in_turns, ratio, summarize
from benchmarks.step.loop import (
    SAMPLES_PER_CLASS,
    Batch,
    configure,
    make_batch,
    make_model_and_loss,
    make_trainer,
)
from benchmarks.step.report import BASE, CCP
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.training.trainer import Trainer

FLOOR, WITH_UPDATE = "bare forward and backward", "the same and Adam"
CLASSES_PER_BATCH, REPEATS = 8, 7
VARIANTS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "--jit_compile": ("--jit_compile",),
    "--mixed_precision=mixed_bfloat16": ("--mixed_precision=mixed_bfloat16",),
    "--mixed_precision=mixed_float16": ("--mixed_precision=mixed_float16",),
}


class Section(NamedTuple):
    """A backbone, the side of its images, the steps of an epoch, and flags of variants by their name."""

    backbone: str
    side: int
    steps: int
    variants: Mapping[str, tuple[str, ...]] = MappingProxyType({"float32": ()})


SECTIONS = {
    "emoji": Section("efficientnet_lite0", 64, 10),
    "paper": Section("bn_inception", 227, 2),
    "variants": Section("cifar_resnet", 32, 10, VARIANTS),
}


def main() -> None:
    parser = results.make_parser(__doc__)
    parser.add_argument(
        "--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help="default: all"
    )
    parser.add_argument("--again", action="store_true", help="repeat sections that have results")
    options = parser.parse_args()
    tf.get_logger().setLevel("ERROR")
    if options.quick:
        results.publish("step", {"sections": {"emoji": measure(SECTIONS["emoji"], 1)}}, write=False)
        return
    found = results.read_of_this_machine("step").get("sections", {})
    for name in options.sections:
        if name not in found or options.again:
            found[name] = measure(SECTIONS[name], REPEATS)
            found = {section: found[section] for section in SECTIONS if section in found}
            results.publish("step", {"sections": found}, write=True)


def measure(section: Section, repeats: int) -> dict[str, Any]:
    """The rows of a section."""
    tasks: dict[str, Callable[[], object]] = {}
    trainers = []
    for variant, flags in section.variants.items():
        for loss, name in (("contrastive", BASE), ("ccp/contrastive", CCP)):
            config = configure(*section[:3], CLASSES_PER_BATCH, loss, *flags)
            tf.keras.mixed_precision.set_global_policy(config.training.mixed_precision)
            batch = make_batch(config)
            if not tasks:
                tasks[FLOOR] = bare_steps(config, batch, update=False)
                tasks[WITH_UPDATE] = bare_steps(config, batch, update=True)
            trainer = make_trainer(config, batch)
            trainer.trace()
            trainers.append(trainer)
            tasks[name if variant == "float32" else f"{name}, {variant}"] = one_epoch(trainer)
    tf.keras.mixed_precision.set_global_policy("float32")
    seconds = in_turns(tasks, repeats)
    assert all(trainer.trace_count == 1 for trainer in trainers), "the loop was traced again"
    images = SAMPLES_PER_CLASS * CLASSES_PER_BATCH
    return {
        "title": f"{section.backbone}, {images} images of {section.side} px, {section.steps} steps at a time",
        "rows": list(rows(seconds, section.steps)),
    }


def bare_steps(config: ExperimentConfig, batch: Batch, *, update: bool) -> Callable[[], None]:
    """The work that no loop can avoid: gradients of the base loss and, with `update`, Adam's update."""
    model, loss = make_model_and_loss(config)
    images_and_labels = [tf.constant(array) for array in batch]
    optimizer = tf.keras.optimizers.legacy.Adam(config.optimizer.learning_rate)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        if update:
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return gradients

    def run() -> None:
        for _ in range(config.training.steps_per_epoch):
            found = step(*images_and_labels)
        found[0].numpy()

    return run


def one_epoch(trainer: Trainer) -> Callable[[], object]:
    """A task that trains the next epoch."""
    return lambda: trainer.fit(trainer.epoch + 1)


def rows(seconds: Mapping[str, Sequence[Seconds]], steps: int) -> Iterator[dict[str, Any]]:
    """The rows of the results."""
    for name, calls in seconds.items():
        step, to_floor = summarize(calls).per(steps / 1e3), ratio(calls, seconds[FLOOR])
        yield {
            "name": name,
            "milliseconds": step.median,
            "least": step.least,
            "most": step.most,
            "processor_milliseconds": step.processor,
            "ratio": to_floor.elapsed,
            "processor_ratio": to_floor.processor,
        }


if __name__ == "__main__":
    main()
