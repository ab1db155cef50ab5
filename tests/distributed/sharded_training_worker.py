"""One of several workers, as TF_CONFIG says: `python -m tests.distributed.sharded_training_worker FILE`.

It writes the figures of a run with sharded proxies, which goes on from a checkpoint, and those of a run on
one device.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.distributed.sharded_training import CCP, run

if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    folder = Path(sys.argv[1]).parent / "checkpoints"
    for epochs in (3, 5):
        found = run(2, CCP, sharded=True, epochs=epochs, folder=folder, strategy=strategy)
    expected = run(1, CCP, sharded=False)
    figures, alone = found.figures(), expected.figures()
    # The logs are those of the last two epochs.
    alone |= {name: alone[name][-2:] for name in found.logs if name in alone}
    np.savez(sys.argv[1], **figures, **{f"alone {name}": values for name, values in alone.items()})
