"""What exact repetition and exact resumption cost: deterministic operations, and saving.

    python -m benchmarks.reliability          # about a minute on 2 cores

A training step (EfficientNet-Lite0 at 96 pixels, 16 random images, contrastive loss inside CCP, Adam) with
and without deterministic operations, each in a process of its own; and a checkpoint of that run. Times are
those of the processor, which a busy machine disturbs less than elapsed time; medians over the repeats.
"""

from __future__ import annotations

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CLASSES, BATCH, SIDE = 50, 16, 96


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each")
    parser.add_argument("--steps", type=int, default=4, help="training steps in a measurement")
    parser.add_argument("--measure", choices=("default", "deterministic"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure == "deterministic", options.repeats, options.steps)
        return
    for mode in ("default", "deterministic"):
        command = [sys.executable, "-m", "benchmarks.reliability", f"--measure={mode}"]
        subprocess.run(
            [*command, f"--repeats={options.repeats}", f"--steps={options.steps}"],
            check=True,
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )


def measure(deterministic: bool, repeats: int, steps: int) -> None:
    """Prints the cost of a step, and with deterministic operations that of a checkpoint."""
    import numpy as np
    import tensorflow as tf

    from ccp_dml.losses import registry
    from ccp_dml.models.embedding_model import build_embedding_model
    from ccp_dml.training.checkpoints import Checkpoints, Saver
    from ccp_dml.training.controllers import EarlyStopping
    from ccp_dml.training.optimizers import OptimizerGroups, VariableGroup, make_optimizer
    from ccp_dml.training.trainer import Trainer

    tf.keras.utils.set_random_seed(0)
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    model = build_embedding_model("efficientnet_lite0", weights="random", embedding_size=128, image_size=SIDE)
    loss = registry.build("ccp/contrastive", num_classes=CLASSES, embedding_size=128)
    images = np.random.default_rng(0).uniform(0, 255, [BATCH, SIDE, SIDE, 3]).astype(np.float32)
    labels = np.repeat(np.arange(BATCH // 2), 2).astype(np.int32)
    trained = [*model.trainable_variables, *loss.trainable_variables]
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(folder)
        trainer = Trainer(
            model,
            loss,
            OptimizerGroups(functools.partial(make_optimizer, "adam"), [VariableGroup(trained)], 1e-4),
            lambda first: tf.data.Dataset.from_tensors((images, labels)).repeat(),
            steps_per_epoch=steps,
            stopping=EarlyStopping([*model.variables, *loss.variables], patience=None, monitor="loss"),
            saver=Saver(None),
        )
        trainer.fit(1)  # traces
        seconds = []
        for epoch in range(repeats):
            seconds.append(elapsed(lambda epoch=epoch: trainer.fit(epoch + 2)) / steps)
        mode = "deterministic" if deterministic else "default"
        print(
            f"{mode:14} step        {1000 * statistics.median(seconds):8.0f} ms of processor time", flush=True
        )
        if deterministic:
            checkpoints.track(**trainer.state)
            saves = [elapsed(lambda step=step: checkpoints.save(step)) for step in range(1, repeats + 1)]
            size = sum(file.stat().st_size for file in Path(checkpoints.latest).parent.iterdir()) / 2**20
            cost = 1000 * statistics.median(saves)
            print(f"{mode:14} checkpoint  {cost:8.0f} ms of processor time for {size:.0f} MiB")


def elapsed(action) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


if __name__ == "__main__":
    main()
