"""A worker of the cluster in TF_CONFIG: `python -m tests.distributed.division_worker FILE`."""

from __future__ import annotations

import sys

import numpy as np
import tensorflow as tf

from ccp_dml.distributed.workers import Workers
from tests.distributed.division import divided_work

if __name__ == "__main__":
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    workers = Workers(strategy)
    # There is a single query, so the second worker has none.
    found = divided_work(strategy).to_arrays("7 queries: ")
    found |= divided_work(strategy, queries=1).to_arrays("1 queries: ")
    told = workers.from_all({"index": workers.index, "score": float("nan"), "third": 1 / 3})
    rows = np.arange(6, dtype=np.int64).reshape(3, 2)[: 3 * workers.index] - 2**40
    found |= {
        "told": np.array([[of_one["index"], of_one["score"], of_one["third"]] for of_one in told]),
        "unequal": workers.gather(rows),
        "empty": workers.gather(rows[:0]),
        "plain": workers.gather(rows[:, 0]),
        "columns": workers.gather(np.arange(24.0).reshape(2, 4, 3)[:, workers.local_slice(4)], axis=1),
    }
    np.savez(sys.argv[1], **found)
    workers.from_chief(None)
