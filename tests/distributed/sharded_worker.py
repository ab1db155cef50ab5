"""One of the two workers in TF_CONFIG, which compares sharded with unsharded losses.

    python -m tests.distributed.sharded_worker FOLDER

It prints JSON as `sharded_replicas` does, for its shard. Both workers see the folder.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml.distributed import tables
from ccp_dml.distributed.workers import Workers
from tests.distributed.sharded_replicas import Deviations, deviation, gradients_of, make
from tests.losses.cases import NUM_CLASSES, SIZE, LossCase, batch
from tests.losses.shard_cases import REPRESENTATIVE


def main(folder: Path) -> None:
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    workers = Workers(strategy)
    assert (workers.count, workers.replicas_per_worker) == (2, 1)
    print(json.dumps({case.id: compare(strategy, case, workers, folder) for case in REPRESENTATIVE}))


def compare(strategy: tf.distribute.Strategy, case: LossCase, workers: Workers, folder: Path) -> Deviations:
    unsharded = make(case, shard_proxies=False)
    with strategy.scope():
        sharded = make(case, shard_proxies=True)
    on_replica, proxies = gradients_of(sharded), sharded.proxies
    labels, embeddings = (tf.convert_to_tensor(array) for array in batch(0))
    expected = gradients_of(unsharded)(labels, embeddings)
    results = tf.function(lambda: strategy.run(on_replica, args=(labels, embeddings)))()
    value, of_embeddings, of_table = (strategy.experimental_local_results(result)[0] for result in results)
    first = workers.index * proxies.classes_per_shard
    of_classes = np.reshape(expected[2], [proxies.proxies_per_class, NUM_CLASSES, SIZE])[:, first:]
    of_classes = of_classes[:, : proxies.classes_per_shard]
    here = np.reshape(of_table, [proxies.proxies_per_class, -1, SIZE])[:, : of_classes.shape[1]]
    found = {
        "value": deviation(value, expected[0]),
        "embeddings": deviation(of_embeddings, expected[1]),
        "proxies": deviation(here, of_classes),
    }
    # A worker gathers its three classes in two blocks of two classes.
    tables._GATHERED_AT_ONCE = 4 * proxies.proxies_per_class * SIZE
    table = unsharded.proxies.by_class.numpy()
    found["whole"] = deviation(proxies.whole(), table)
    checkpoint, path = tf.train.Checkpoint(proxies=proxies), str(folder / case.id.replace("/", "-"))
    with tables.gathered_tables(checkpoint):
        if workers.is_chief:
            checkpoint.write(path)
    workers.from_chief(None)
    for name, read in (("checkpoint", proxies), ("checkpoint, one device", unsharded.proxies)):
        read.reset(table + 1.0)
        tf.train.Checkpoint(proxies=read).read(path).assert_consumed()
        found[name] = deviation(read.whole(), table)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
