"""A process that trains on R replicas for a few steps, and tells what a step takes.

python -m benchmarks.scaling_replicas '{"replicas": 2, "sharded": false, "steps": 4, "repeats": 3, ...}'
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from benchmarks import measuring
from benchmarks.step import CLASSES, SECTIONS, configuration, noise
from ccp_dml.distributed import replicas
from ccp_dml.distributed.shards import ReplicaShards
from ccp_dml.distributed.strategy import make_strategy, scope_of
from ccp_dml.experiment import parts
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.projections import AlternatingProjections
from ccp_dml.training.distributed_batches import distributed_batches
from ccp_dml.training.trainer import Trainer

LOSS = "ccp/contrastive"


def main(asked: dict[str, Any]) -> dict[str, float]:
    tf.config.threading.set_intra_op_parallelism_threads(asked["threads"])
    tf.get_logger().setLevel("ERROR")
    with _counted_bytes() as handed_over:
        trainer = _trainer(asked)
        trainer.trace()
    # Every replica of this process has traced the step.
    count = sum(handed_over) // asked["replicas"]
    found = measuring.in_turns({"step": lambda: trainer.fit(trainer.epoch + 1)}, asked["repeats"])["step"]
    assert trainer.trace_count == 1, "the loop was traced again"
    step = measuring.times(found).per(asked["steps"])
    return {
        "milliseconds": 1e3 * step.median,
        "least": 1e3 * step.least,
        "most": 1e3 * step.most,
        "processor_milliseconds": 1e3 * step.processor,
        "images_per_second": asked["batch_size"] / step.median,
        "bytes_handed_over": count,
    }


@contextlib.contextmanager
def _counted_bytes() -> Iterator[list[int]]:
    """Bytes of each tensor that is given to an exchange between replicas, as functions are traced."""
    found: list[int] = []

    def counted(tensors: Sequence[tf.Tensor]) -> None:
        if replicas.count() > 1:
            found.extend(tensor.shape.num_elements() * tensor.dtype.size for tensor in tensors)

    def sum_over_replicas(tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        counted(tensors)
        return sums(tensors)

    def all_sum(shards: ReplicaShards, values: tf.Tensor) -> tf.Tensor:
        counted([values])
        return sum_of_shards(shards, values)

    def all_gather(shards: ReplicaShards, values: tf.Tensor) -> tf.Tensor:
        counted([values])
        return gather(shards, values)

    sums, sum_of_shards, gather = (
        replicas.sum_over_replicas,
        ReplicaShards._all_sum,
        ReplicaShards._all_gather,
    )
    with (
        mock.patch.object(replicas, "sum_over_replicas", sum_over_replicas),
        mock.patch.object(ReplicaShards, "_all_sum", all_sum),
        mock.patch.object(ReplicaShards, "_all_gather", all_gather),
    ):
        yield found


def _trainer(asked: dict[str, Any]) -> Trainer:
    """A loop as in `benchmarks.step`, each replica with its rows of one batch of noise."""
    count = asked["replicas"]
    flags = [f"--logical_cpus={count}", "--strategy=mirrored"] if count > 1 else []
    flags += ["--shard_proxies"] if asked["sharded"] else []
    section = SECTIONS["emoji"]._replace(steps=asked["steps"])
    config = configuration(section, asked["batch_size"] // 4, LOSS, *flags)
    strategy = make_strategy(config)
    with scope_of(strategy):
        model, loss = parts.make_model(config), parts.make_loss(config, CLASSES)
    options = ProjectionOptions(use_representative_proxy=False)
    projections = AlternatingProjections(model.trainable_variables, loss.proxies, None, options)
    # As from the second problem instance on.
    projections.proximal_coefficient.assign(config.projection.ccp_lambda)
    with scope_of(strategy):
        optimizer = parts.make_optimizer_groups(config.training, model, loss)
        transforms = parts.make_transforms(config.training, model, projections)
    batch = tf.data.Dataset.from_tensor_slices(noise(config))
    dataset = batch.batch(asked["batch_size"] // count, drop_remainder=True).cache().repeat()
    return Trainer(
        model,
        loss,
        optimizer,
        (lambda first_step: dataset)
        if strategy is None
        else distributed_batches(strategy, lambda first_step, worker, workers, local: dataset),
        steps_per_epoch=asked["steps"],
        transforms=transforms,
        strategy=strategy,
    )


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
