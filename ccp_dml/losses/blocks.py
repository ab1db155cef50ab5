"""A loss that is computed a block of anchors at a time, to save memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

# (embeddings, first anchor, number of anchors) -> float32 [T]; the number is static if the batch size is.
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
    """Computes a loss from sums over anchors, holding the pairs of one block of anchors at a time.

    Each block is computed twice, for the sums and for its contribution to the gradient: about twice the time.
    The gradient cannot be differentiated again.

    Args:
        sums_of_block: computes the sums over a block of anchors.
        combined: computes the loss, a scalar, from the sums over all anchors.
        embeddings: float32 [B, D].
        variables: further variables that the sums depend on, for which there is a gradient.
        count: number of anchors.
        block: largest number of anchors in a block, at least 1.

    Returns:
        float32 scalar.
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
    # Adds zeros whose gradient is the one computed above.
    loss = tf.stop_gradient(loss)
    for source, gradient in zip([embeddings, *variables], gradients):
        loss += tf.reduce_sum(tf.stop_gradient(gradient) * (source - tf.stop_gradient(source)))
    return loss


def _accumulate(
    of_block: Callable[[Any, Any], list[tf.Tensor]], count: int | tf.Tensor, block: int
) -> list[tf.Tensor]:
    """Sums the results of all blocks; only the first block may be shorter than the others."""
    rest = count % block
    if isinstance(count, int):
        rest = rest or min(block, count)
    full_blocks = (count - rest) // block
    results = of_block(0, rest)
    if isinstance(full_blocks, int) and full_blocks == 0:
        return results

    def add(index: tf.Tensor, *sums: tf.Tensor) -> list[tf.Tensor]:
        found = of_block(rest + index * block, block)
        return [index + 1, *(total + item for total, item in zip(sums, found))]

    shapes = [tf.TensorShape([]), *(result.shape for result in results)]
    # One after the other: blocks in parallel would hold all pairs at once.
    _, *totals = tf.while_loop(
        lambda index, *_: index < full_blocks,
        add,
        [tf.constant(0), *results],
        shape_invariants=shapes,
        parallel_iterations=1,
    )
    return list(totals)
