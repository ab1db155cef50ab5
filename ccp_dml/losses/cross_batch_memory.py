"""Cross-batch memory: a pair loss on the batch, and against the embeddings of earlier batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from ccp_dml.distributed.replicas import per_replica_state, write_rows
from ccp_dml.geometry import normalize
from ccp_dml.losses.base import MetricLoss, class_labels, image_ids, in_float32
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.wrapper import ExtendingLoss


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CrossBatchMemory(ExtendingLoss):
    """XBM: the embeddings of the last steps are further references, without gradient.

    `pair_weight * L(pairs of the batch) + memory_weight * L(batch against the memory)`, with L any
    pair-based loss. Each call of `parts` first writes the raw embeddings of the batch over the oldest rows of
    the memory. The second term counts once the memory is full and `start_step` steps were made, this one
    included. So every call has to be a training step. Around a wrapper of L the first term is the whole of
    that wrapper.

    Wang, Zhang, Huang, Scott, "Cross-batch memory for embedding learning", CVPR 2020.

    Attributes:
        memory: float32 variable [M, D], raw embeddings.
        memory_labels: int32 variable [M], their classes.
        memory_ids: int64 variable [M], their image ids; distinct negative numbers where labels had none.
        rows_written: int64 variable, how many rows were written so far: the next goes to that, modulo M.
        steps: int64 variable, how many batches were written so far.
    """

    def __init__(
        self,
        base: MetricLoss,
        embedding_size: int,
        memory_size: int = 4096,
        memory_weight: float = 1.0,
        start_step: int = 1000,
        exclude_own_copy: bool = True,
        anchors_per_block: int = 0,
        **options: Any,
    ) -> None:
        """Wraps a loss.

        Args:
            base: L, without proxies of its own, or a wrapper of it. The `weight` of L is a factor on both
                terms.
            embedding_size: dimension D of the embeddings.
            memory_size: number M of embeddings that are remembered, at least 1; of a larger batch the last
                ones are.
            memory_weight: weight of the batch against the memory.
            start_step: first step, counted from 1, whose loss may use the memory.
            exclude_own_copy: never pair a sample with a row of its own image: with labels (class, image id)
                any such row, without ids the copy that this very step has written.
            anchors_per_block: if positive, compare only so many anchors with the memory at a time, which
                needs less room and about twice the time.
            **options: `pair_weight` and `mine_pairs` of the pairs of the batch, see `ExtendingLoss`, and
                `name`.

        Raises:
            ValueError: if `base` has proxies or is not defined on pairs, a number is out of range, an option
                is one that the wrapper inside has, or blocks are asked for and the loss depends on all
                anchors at once.
        """
        super().__init__(base, **options)
        if self.core.options.proxy_pairs:
            raise ValueError("XBM does not compare its memory with itself; expected proxy_pairs to be False")
        for option, value, least in (
            ("memory_size", memory_size, 1),
            ("start_step", start_step, 0),
            ("anchors_per_block", anchors_per_block, 0),
        ):
            if value < least:
                raise ValueError(f"{option} is {value}; expected at least {least}")
        if anchors_per_block and not self.core.in_blocks:
            raise ValueError(
                f"anchors_per_block is {anchors_per_block}, but the miner or the formula of "
                f"{type(self.core).__name__} looks at all anchors at once; expected 0"
            )
        self.embedding_size = embedding_size
        self.memory_size = memory_size
        self.memory_weight = memory_weight
        self.start_step = start_step
        self.exclude_own_copy = exclude_own_copy
        self.anchors_per_block = anchors_per_block
        self.memory = per_replica_state(tf.zeros([memory_size, embedding_size]), name="memory")
        self.memory_labels = per_replica_state(tf.fill([memory_size], -1), name="memory_labels")
        self.memory_ids = per_replica_state(tf.zeros([memory_size], tf.int64), name="memory_ids")
        self.rows_written = per_replica_state(0, tf.int64, "rows_written")
        self.steps = per_replica_state(0, tf.int64, "steps")

    @property
    def memory_in_use(self) -> tf.Tensor:
        """Whether the loss of the last step looked at the memory: bool scalar."""
        return (self.rows_written >= self.memory_size) & (self.steps >= self.start_step)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """`pair_loss`, or the parts of the wrapper inside, and `memory_loss`; see the base class.

        Writes the batch to the memory.
        """
        classes, embeddings = class_labels(labels), in_float32(embeddings)
        of_batch = self.batch_components(labels, embeddings)
        ids = self._remember(classes, image_ids(labels), embeddings)
        to_memory = tf.cond(
            self.memory_in_use, lambda: self._against_memory(embeddings, classes, ids), lambda: tf.zeros([])
        )
        return {**of_batch, "memory_loss": self.memory_weight * to_memory}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """As the base class says, of the pairs of the batch or the wrapper inside. Writes nothing."""
        return self.batch_diagnostics(labels, embeddings)

    def _remember(self, classes: tf.Tensor, ids: tf.Tensor | None, embeddings: tf.Tensor) -> tf.Tensor:
        """Writes the batch over the oldest rows; returns its ids."""
        count = tf.shape(embeddings, out_type=tf.int64)[0]
        serial = self.rows_written + tf.range(count)
        ids = -1 - serial if ids is None else ids
        # Of a batch that exceeds the memory, the rows that would not be overwritten at once.
        last = slice(-self.memory_size, None)
        places = (serial[last] % self.memory_size)[:, tf.newaxis]
        for variable, rows in (
            (self.memory, tf.stop_gradient(embeddings)),
            (self.memory_labels, classes),
            (self.memory_ids, ids),
        ):
            write_rows(variable, places, rows[last])
        self.rows_written.assign_add(count)
        self.steps.assign_add(1)
        return ids

    def _against_memory(self, embeddings: tf.Tensor, classes: tf.Tensor, ids: tf.Tensor) -> tf.Tensor:
        """The innermost loss of the batch against the memory: float32 scalar."""
        core = self.core
        rows = normalize(self.memory.read_value(), core.options.normalization)
        memory = [rows, self.memory_labels.read_value(), self.memory_ids.read_value()]
        if not self.anchors_per_block:
            return core.options.weight * core.formula(self._pairs([embeddings, classes, ids], memory))
        batch_size = tf.shape(embeddings)[0] if embeddings.shape[0] is None else embeddings.shape[0]

        def sums_of_block(points: tf.Tensor, start: Any, size: Any) -> tf.Tensor:
            batch, chosen = [points, classes, ids], start + tf.range(size)
            if core.options.proxy_anchor:
                pairs = self._pairs(batch, [tf.gather(part, chosen) for part in memory])
            else:
                pairs = self._pairs([tf.gather(part, chosen) for part in batch], memory)
            return tf.stack(core.sums(pairs))

        loss = loss_over_blocks(
            sums_of_block,
            lambda sums: core.combined(tf.unstack(sums)),
            embeddings,
            core.trainable_variables,
            count=self.memory_size if core.options.proxy_anchor else batch_size,
            block=self.anchors_per_block,
        )
        return core.options.weight * loss

    def _pairs(self, batch: list[tf.Tensor], memory: list[tf.Tensor]) -> Pairs:
        """Pairs of (raw embeddings, classes, ids) with rows (normalised embeddings, classes, ids)."""
        (embeddings, classes, ids), (references, reference_labels, reference_ids) = batch, memory
        return self.core.pairs(
            normalize(embeddings, self.core.options.normalization),
            classes,
            references,
            reference_labels,
            ids=ids if self.exclude_own_copy else None,
            reference_ids=reference_ids,
            normalization="none",
        )


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
