"""A loss of many anchors, a block of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# (embeddings, first anchor, number of anchors) -> float32 [T]; the number is static if that of all is.
SumsOfBlock = Callable[[tf.Tensor, Any, Any], tf.Tensor]


def loss_over_blocks(
    sums_of_block: SumsOfBlock,
    combined: Callable[[tf.Tensor], tf.Tensor],
    embeddings: tf.Tensor,
    variables: Sequence[tf.Variable],
    *,
    count: int | tf.Tensor,
    block: int,
) -> tf.Tensor:
    """A loss that sums over anchors make, without ever holding what all of them need.

    Each block is computed once for the sums and once more for its share of the gradient: about twice the
    time, and the memory of one block. The gradient cannot be differentiated again.

    Args:
        sums_of_block: sums over a block of anchors.
        combined: the loss, a scalar, that the sums of all blocks make.
        embeddings: float32 [B, D].
        variables: what else the sums depend on and the gradient is for.
        count: number of anchors.
        block: how many to take at a time, at least 1.

    Returns:
        Float32 scalar.
    """
    points = tf.stop_gradient(embeddings)
    [sums] = _accumulate(lambda start, size: [sums_of_block(points, start, size)], count, block)
    sums = tf.stop_gradient(sums)
    with tf.GradientTape() as tape:
        tape.watch(sums)
        loss = combined(sums)
    slopes = tape.gradient(loss, sums)

    def gradients_of_block(start: Any, size: Any) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(points)
            sums = sums_of_block(points, start, size)
        found = tape.gradient(sums, [points, *variables], slopes, unconnected_gradients="zero")
        return [tf.convert_to_tensor(gradient) for gradient in found]

    gradients = _accumulate(gradients_of_block, count, block)
    # Adds zeros that have the gradient.
    loss = tf.stop_gradient(loss)
    for source, gradient in zip([embeddings, *variables], gradients):
        loss += tf.reduce_sum(tf.stop_gradient(gradient) * (source - tf.stop_gradient(source)))
    return loss


def _accumulate(
    of_block: Callable[[Any, Any], list[tf.Tensor]], count: int | tf.Tensor, block: int
) -> list[tf.Tensor]:
    """Sum of the results over the blocks; the first block is the one that may be short."""
    rest = count % block
    if isinstance(count, int):
        rest = rest or min(block, count)
    whole = (count - rest) // block
    results = of_block(0, rest)
    if isinstance(whole, int) and whole == 0:
        return results

    def add(index: tf.Tensor, *sums: tf.Tensor) -> list[tf.Tensor]:
        found = of_block(rest + index * block, block)
        return [index + 1, *(total + item for total, item in zip(sums, found))]

    shapes = [tf.TensorShape([]), *(result.shape for result in results)]
    # One after the other: blocks in parallel would hold what blocks are there to save.
    _, *totals = tf.while_loop(
        lambda index, *_: index < whole,
        add,
        [tf.constant(0), *results],
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    return list(totals)
