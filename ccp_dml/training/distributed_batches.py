"""Batches for the replicas of a distribution strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

# (first step, worker, number of workers, replicas of a worker) -> the stream that the worker's replicas read
OwnBatches = Callable[[int, int, int, int], tf.data.Dataset]


def distributed_batches(strategy: tf.distribute.Strategy, make: OwnBatches) -> Callable[[int], Any]:
    """The stream of a strategy, of which every worker makes its own part only.

    Args:
        strategy: whose replicas read it.
        make: `make(first_step, worker, workers, replicas)` gives an endless dataset whose elements are, step
            after step, the rows of each of the worker's replicas in their order.

    Returns:
        A function of the first step, whose result gives each step's rows to the replicas.
    """

    def batches(first_step: int) -> Any:
        def own(context: tf.distribute.InputContext) -> tf.data.Dataset:
            workers = context.num_input_pipelines
            replicas = context.num_replicas_in_sync // workers
            dataset = make(first_step, context.input_pipeline_id, workers, replicas)
            # Else the workers would ask one another before every step whether there is another.
            return dataset.apply(tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY))

        return strategy.distribute_datasets_from_function(own)

    return batches
