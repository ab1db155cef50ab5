"""One of several workers, as TF_CONFIG says: `python -m tests.distributed.division_worker FILE`."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml.workers import Workers
from tests.distributed.division import divided_work

if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    workers = Workers(strategy)
    # With a single query the second worker has none.
    works = [divided_work(strategy), divided_work(strategy, queries=1)]
    told = workers.from_all({"index": workers.index, "score": float("nan"), "third": 1 / 3})
    rows = np.arange(6, dtype=np.int64).reshape(3, 2)[: 3 * workers.index] - 2**40
    gathered = [workers.gather(rows), workers.gather(rows[:0]), workers.gather(rows[:, 0])]
    columns = workers.gather_columns(np.arange(24.0).reshape(2, 4, 3)[:, workers.share(4)])
    Path(sys.argv[1]).write_bytes(pickle.dumps((works, told, gathered, columns)))
    workers.from_chief(None)
