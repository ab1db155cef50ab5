"""Time of a training step in the loop against the bare forward and backward pass of the same batch.

    python -m benchmarks.step                         # about ten minutes; goes on where it was stopped
    python -m benchmarks.step --sections emoji --again

The floor is a `tf.function` of the model in training mode, the base loss and the gradients of all weights;
the row below it adds Adam's update of the weights. The loop is `Trainer.fit` for one epoch of a few steps,
callbacks and logs included: with the base loss (weight decay and clipping are in it), and with CCP (in
addition proxies and the proximal term). `emoji` is efficientnet_lite0 on images of 64 px; `paper` is
bn_inception on images of 227 px; `variants` is a small ResNet with XLA and mixed precision, whose floor is
float32 without XLA (XLA's depthwise convolutions are of no use on a CPU).

No image is decoded: a batch of noise is repeated. Everything is measured in turn, and a ratio is the median
of the ratios within a turn, of elapsed time and of processor time (which a busy machine disturbs less). The
loop is traced once, which is asserted.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.measuring import FOLDER, Headline, Seconds, in_turns, machine, ratio, times, write
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.data.pipeline import without_tuning
from ccp_dml.experiment import parts
from ccp_dml.experiment.native_output import use_up_xla_notice
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.trainer import Trainer

CLASSES, PROXIES_PER_CLASS, SAMPLES_PER_CLASS = 240, 4, 4
FLOOR, WITH_UPDATE = "bare forward and backward", "the same and Adam"
BASE, CCP = "loop, contrastive", "loop, ccp/contrastive"
AIMS = {BASE: 1.03, CCP: 1.05}
VARIANTS: dict[str, tuple[str, ...]] = {
    "float32": (),
    "--jit_compile": ("--jit_compile",),
    "--mixed_precision=mixed_bfloat16": ("--mixed_precision=mixed_bfloat16",),
    "--mixed_precision=mixed_float16": ("--mixed_precision=mixed_float16",),
}


class Section(NamedTuple):
    backbone: str
    size: int
    steps: int
    variants: Mapping[str, tuple[str, ...]] = MappingProxyType({"float32": ()})


SECTIONS = {
    "emoji": Section("efficientnet_lite0", 64, 10),
    "paper": Section("bn_inception", 227, 2),
    "variants": Section("cifar_resnet", 32, 10, VARIANTS),
}


def main() -> None:
    options = parse_options()
    tf.get_logger().setLevel("ERROR")
    use_up_xla_notice()
    found = measured_before()
    for name in options.sections:
        if name not in found or options.again:
            found[name] = measure(SECTIONS[name], options)
            found = {section: found[section] for section in SECTIONS if section in found}
            write("step", {"sections": found}, table(found.values()), headlines(found.values()))
        print_section(found[name])


def measured_before() -> dict[str, Any]:
    """Sections that were measured on this machine with this TensorFlow."""
    file, here = FOLDER / "step.json", machine()
    results = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"machine": {}}
    same = all(results["machine"].get(key) == here[key] for key in ("processor", "cores", "tensorflow"))
    return dict(results["sections"]) if same else {}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS), help=", ".join(SECTIONS))
    add("--batch_classes", type=int, default=8, help="classes in a batch, of four images each (8)")
    add("--repeats", type=int, default=7, help="measurements of each row (7)")
    add("--again", action="store_true", help="measure anew what was measured before")
    return parser.parse_args()


def measure(section: Section, options: argparse.Namespace) -> dict[str, Any]:
    tasks: dict[str, Callable[[], object]] = {}
    trainers = []
    for variant, flags in section.variants.items():
        for loss, name in (("contrastive", BASE), ("ccp/contrastive", CCP)):
            config = configuration(section, options.batch_classes, loss, *flags)
            tf.keras.mixed_precision.set_global_policy(config.training.mixed_precision)
            batch = noise(config)
            if not tasks:
                tasks[FLOOR] = bare(config, batch, section.steps, update=False)
                tasks[WITH_UPDATE] = bare(config, batch, section.steps, update=True)
            trainers.append(trainer(config, batch))
            tasks[name if variant == "float32" else f"{name}, {variant}"] = epochs(trainers[-1])
    tf.keras.mixed_precision.set_global_policy("float32")
    seconds = in_turns(tasks, options.repeats)
    assert all(one.trace_count == 1 for one in trainers), "the loop was traced again"
    images = SAMPLES_PER_CLASS * options.batch_classes
    return {
        "title": f"{section.backbone}, {images} images of {section.size} px, {section.steps} steps at a time",
        "rows": list(rows(seconds, section.steps)),
    }


def configuration(section: Section, classes: int, loss: str, *flags: str) -> ExperimentConfig:
    weights = "imagenet" if section.backbone == "efficientnet_lite0" else "random"
    return command_line.parse(
        [
            "--dataset=emoji",
            f"--loss={loss}",
            f"--backbone={section.backbone}",
            f"--backbone_weights={weights}",
            f"--image_size={section.size}",
            f"--classes_per_batch={classes}",
            f"--steps_per_epoch={section.steps}",
            *([f"--proxies_per_class={PROXIES_PER_CLASS}"] if loss.startswith("ccp/") else []),
            *flags,
        ]
    )


def noise(config: ExperimentConfig) -> tuple[tf.Tensor, tf.Tensor]:
    """A batch as the loop gets it: float32 images, and (class, image id)."""
    classes, side = config.data.classes_per_batch, config.data.image_size
    generator = np.random.default_rng(0)
    labels = np.repeat(generator.choice(CLASSES, classes, replace=False), SAMPLES_PER_CLASS)
    images = generator.uniform(0, 255, [len(labels), side, side, 3]).astype(np.float32)
    return tf.constant(images), tf.constant(np.stack([labels, np.arange(len(labels))], 1), tf.int32)


def bare(
    config: ExperimentConfig, batch: tuple[tf.Tensor, tf.Tensor], steps: int, *, update: bool
) -> Callable[[], None]:
    """What no loop can avoid: the gradients of the base loss, once a step, and Adam's update if asked for."""
    model, loss = parts.make_model(config), parts.make_loss(config, CLASSES)
    optimizer = tf.keras.optimizers.legacy.Adam(config.training.learning_rate)

    @tf.function(autograph=False)
    def step(images: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            value = loss(labels, model(images, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        if update:
            optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        return gradients

    def run() -> None:
        for _ in range(steps):
            found = step(*batch)
        found[0].numpy()

    return run


def trainer(config: ExperimentConfig, batch: tuple[tf.Tensor, tf.Tensor]) -> Trainer:
    """The loop of a run on one batch; proxies keep their first values, nothing is validated or saved."""
    model, loss = parts.make_model(config), parts.make_loss(config, CLASSES)
    projections = None
    if config.uses_projections:
        options = ProjectionOptions(use_representative_proxy=False)
        projections = AlternatingProjections(model.trainable_variables, loss.proxies, None, options)
        # As from the second problem instance on.
        projections.proximal_coefficient.assign(config.projection.ccp_lambda)
    made = Trainer(
        model,
        loss,
        parts.make_optimizer_groups(config.training, model, loss),
        lambda first_step: without_tuning(tf.data.Dataset.from_tensors(batch).repeat()),
        steps_per_epoch=config.training.steps_per_epoch,
        transforms=parts.make_transforms(config.training, model, projections),
        schedule=parts.make_schedule(config.training),
        jit_compile=config.training.jit_compile,
    )
    made.trace()
    return made


def epochs(of: Trainer) -> Callable[[], object]:
    return lambda: of.fit(of.epoch + 1)


def rows(seconds: Seconds, steps: int) -> Iterator[dict[str, Any]]:
    for name, found in seconds.items():
        step, against = times(found).per(steps / 1e3), ratio(found, seconds[FLOOR])
        yield {
            "name": name,
            "milliseconds": step.median,
            "least": step.least,
            "most": step.most,
            "processor_milliseconds": step.processor,
            "ratio": against.elapsed,
            "processor_ratio": against.processor,
        }


def print_section(found: dict[str, Any]) -> None:
    width = max(len(row["name"]) for row in found["rows"])
    print(f"{found['title']}\n{'':{width}}   ms a step    least     most  ratio  processor ms  ratio")
    for row in found["rows"]:
        print(
            f"{row['name']:{width}}  {row['milliseconds']:10.2f} {row['least']:8.2f} {row['most']:8.2f}  "
            f"{row['ratio']:5.3f}  {row['processor_milliseconds']:12.2f}  {row['processor_ratio']:5.3f}",
            flush=True,
        )


def table(sections: Iterable[dict[str, Any]]) -> Iterator[str]:
    for found in sections:
        yield f"{found['title']}:"
        yield ""
        yield "| | ms a step (least to most) | ratio | processor ms | ratio |"
        yield "|---|---|---|---|---|"
        for row in found["rows"]:
            yield (
                f"| {row['name']} | {row['milliseconds']:.1f} ({row['least']:.1f} to {row['most']:.1f}) | "
                f"{row['ratio']:.3f} | {row['processor_milliseconds']:.1f} | {row['processor_ratio']:.3f} |"
            )
        yield ""


def headlines(sections: Iterable[dict[str, Any]]) -> Iterator[Headline]:
    for found in sections:
        for row in found["rows"]:
            if row["name"] in AIMS:
                what = f"{row['name']}, to the bare forward and backward pass; {found['title']}"
                yield Headline(what, row["ratio"], "×", AIMS[row["name"]])


if __name__ == "__main__":
    main()
