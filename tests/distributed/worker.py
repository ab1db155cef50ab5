"""A worker of the cluster in TF_CONFIG: `python -m tests.distributed.worker FILE`."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

from tests.distributed.runs import SMOOTH, run
from tests.losses.cases import LossCase

CASE, STEPS = LossCase("xbm/contrastive", {"memory_size": 20, "start_step": 2, **SMOOTH}), 20

if __name__ == "__main__":
    found = run(tf.distribute.MultiWorkerMirroredStrategy(), CASE, STEPS)
    np.savez(sys.argv[1], **found.figures)
