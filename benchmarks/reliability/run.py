"""Cost of exact repetition and exact resumption: deterministic operations, and saving.

    python -m benchmarks.reliability.run          # about a minute on 2 cores
    python -m benchmarks.reliability.run --quick  # each measured once

Measured are a training step (EfficientNet-Lite0 at 96 pixels, 16 random images, contrastive loss inside CCP,
Adam) with and without deterministic operations, each in a process of its own, and a checkpoint of that run.
Times are medians of processor time, which a busy machine disturbs less than elapsed time. The figures are
printed; docs/reliability.md quotes them.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import results
from benchmarks.common.measuring import in_turns, summarize
from benchmarks.common.processes import in_process

CLASSES, BATCH, SIDE, STEPS, REPEATS = 50, 16, 96, 4, 5


def main() -> None:
    options = results.make_parser(__doc__).parse_args()
    for deterministic in (False, True):
        print("\n".join(in_process(measure, deterministic, 1 if options.quick else REPEATS)), flush=True)


def measure(deterministic: bool, repeats: int) -> list[str]:
    """Lines with the cost of a step and, if deterministic, of a checkpoint; to be called in a new process."""
    import tensorflow as tf

    from ccp_dml.losses import registry
    from ccp_dml.models.embedding_model import build_embedding_model
    from ccp_dml.training.checkpoints import Checkpoints
    from ccp_dml.training.controllers import EarlyStopping
    from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
    from ccp_dml.training.options import TrainingOptions
    from ccp_dml.training.step import TrainStep
    from ccp_dml.training.trainer import Trainer

    tf.keras.utils.set_random_seed(0)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    model = build_embedding_model("efficientnet_lite0", weights="random", embedding_size=128, image_size=SIDE)
    loss = registry.build("ccp/contrastive", num_classes=CLASSES, embedding_size=128)
    images = np.random.default_rng(0).uniform(0, 255, [BATCH, SIDE, SIDE, 3]).astype(np.float32)
    labels = np.repeat(np.arange(BATCH // 2), 2).astype(np.int32)
    trained = [*model.trainable_variables, *loss.trainable_variables]
    optimizer = OptimizerGroups(functools.partial(make_optimizer, "adam"), [VariableGroup(trained)], 1e-4)
    trainer = Trainer(
        TrainStep(model, loss, optimizer),
        lambda first: tf.data.Dataset.from_tensors((images, labels)).repeat(),
        TrainingOptions(steps_per_epoch=STEPS),
        controllers=[EarlyStopping([*model.variables, *loss.variables], patience=None, monitor="loss")],
    )
    epochs = in_turns({"epoch": lambda: trainer.fit(trainer.epoch + 1)}, repeats)["epoch"]
    mode = "deterministic" if deterministic else "default"
    lines = [f"{mode:14} step        {1000 * summarize(epochs).processor / STEPS:8.0f} ms of processor time"]
    if deterministic:
        with tempfile.TemporaryDirectory() as folder:
            checkpoints, steps = Checkpoints(folder), iter(range(1, repeats + 2))
            checkpoints.track(**trainer.state)
            saves = in_turns({"save": lambda: checkpoints.save(next(steps))}, repeats)["save"]
            assert checkpoints.latest is not None
            size = sum(file.stat().st_size for file in Path(checkpoints.latest).parent.iterdir()) / 2**20
        cost = 1000 * summarize(saves).processor
        lines.append(f"{mode:14} checkpoint  {cost:8.0f} ms of processor time for {size:.0f} MiB")
    return lines


if __name__ == "__main__":
    main()
