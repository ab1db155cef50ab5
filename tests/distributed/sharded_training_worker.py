"""A worker of the cluster in TF_CONFIG: `python -m tests.distributed.sharded_training_worker FILE`.

It writes the figures of a run with sharded proxies that continues from a checkpoint, and those of the same
run on one device, with and without a nudge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.distributed.runs import NUDGE
from tests.distributed.sharded_training import CCP, run

if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    folder = Path(sys.argv[1]).parent / "checkpoints"
    for epochs in (3, 5):
        found = run(2, CCP, sharded=True, epochs=epochs, folder=folder, strategy=strategy)
    figures = {f"two workers: {name}": values for name, values in found.figures().items()}
    for prefix, nudge in (("one device: ", 0.0), ("nudged: ", NUDGE)):
        expected = run(1, CCP, sharded=False, nudge=nudge)
        # The logs of the continued run are those of the last two epochs.
        expected.logs = {name: values[-2:] for name, values in expected.logs.items()}
        figures |= {f"{prefix}{name}": values for name, values in expected.figures().items()}
    np.savez(sys.argv[1], **figures)
