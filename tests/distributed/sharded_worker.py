"""One of two worker processes, each with one replica, that compares sharded losses with whole ones.

    python -m tests.distributed.sharded_worker INDEX PORT OTHER_PORT FOLDER

It prints JSON as `sharded_replicas` does, of the part that it holds.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

from tests.distributed.sharded_replicas import Deviations, deviation, gradients_of, make
from tests.losses.cases import NUM_CLASSES, SIZE, LossCase, batch
from tests.losses.shard_cases import REPRESENTATIVE


def main(index: int, ports: list[int], folder: Path) -> None:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    task = {"type": "worker", "index": index}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    assert strategy.num_replicas_in_sync == 2
    print(json.dumps({case.id: compare(strategy, case, index, folder) for case in REPRESENTATIVE}))


def compare(strategy: tf.distribute.Strategy, case: LossCase, index: int, folder: Path) -> Deviations:
    alone = make(case, shard_proxies=False)
    with strategy.scope():
        sharded = make(case, shard_proxies=True)
    on_replica, proxies = gradients_of(sharded), sharded.proxies
    labels, embeddings = (tf.convert_to_tensor(array) for array in batch(0))
    expected = gradients_of(alone)(labels, embeddings)
    results = tf.function(lambda: strategy.run(on_replica, args=(labels, embeddings)))()
    value, of_embeddings, of_table = (strategy.experimental_local_results(part)[0] for part in results)
    first = index * proxies.classes_per_shard
    of_classes = np.reshape(expected[2], [proxies.proxies_per_class, NUM_CLASSES, SIZE])[:, first:]
    of_classes = of_classes[:, : proxies.classes_per_shard]
    here = np.reshape(of_table, [proxies.proxies_per_class, -1, SIZE])[:, : of_classes.shape[1]]
    found = {
        "value": deviation(value, expected[0]),
        "embeddings": deviation(of_embeddings, expected[1]),
        "proxies": deviation(here, of_classes),
        "whole": deviation(proxies.whole(), alone.proxies.by_class),
    }
    path = tf.train.Checkpoint(proxies=proxies).write(str(folder / "checkpoint"))
    proxies.reset(alone.proxies.by_class + 1.0)
    tf.train.Checkpoint(proxies=proxies).read(path).assert_consumed()
    return {**found, "checkpoint": deviation(proxies.whole(), alone.proxies.by_class)}


if __name__ == "__main__":
    main(int(sys.argv[1]), [int(port) for port in sys.argv[2:4]], Path(sys.argv[4]))
