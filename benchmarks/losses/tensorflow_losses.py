"""Losses of this library as functions, for the benchmark of the losses."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from benchmarks.losses.cases import MEMORY_ROWS, Call, Case, Problem
from ccp_dml.losses import registry


def limit_threads(threads: int) -> None:
    """Sets the number of threads, before TensorFlow does anything."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def make(case: Case, problem: Problem) -> Call:
    """A function that computes a loss and its gradients."""
    dimension = problem.embeddings.shape[1]
    loss = registry.build(
        case.path, num_classes=problem.num_classes, embedding_size=dimension, options=case.options
    )
    if loss.proxies is not None:
        loss.proxies.embeddings.assign(problem.proxies.reshape(-1, dimension))
    if case.path.startswith("xbm/"):
        loss.memory.assign(problem.memory)
        loss.memory_labels.assign(problem.memory_labels)
        loss.memory_ids.assign(-1 - np.arange(MEMORY_ROWS))
        loss.rows_written.assign(MEMORY_ROWS)
    embeddings, labels = tf.constant(problem.embeddings), tf.constant(problem.labels)
    variables = list(loss.trainable_variables)

    @tf.function(autograph=False)
    def value_and_gradients(labels: tf.Tensor, embeddings: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            tape.watch(embeddings)
            value = loss(labels, embeddings)
        return value, tape.gradient(value, [embeddings, *variables])

    # Traced here, so that the first call does not include the memory of tracing.
    traced = value_and_gradients.get_concrete_function(labels, embeddings)

    def call() -> tuple[float, list[np.ndarray]]:
        value, gradients = traced(labels, embeddings)
        return float(value), [gradient.numpy() for gradient in gradients]

    return call
