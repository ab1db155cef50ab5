"""Cross-batch memory: a pair loss on the batch, and on the batch against embeddings of earlier batches."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from ccp_dml.distributed.replicas import per_replica_state, write_rows
from ccp_dml.geometry import normalize, to_float32
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.blocks import loss_over_blocks
from ccp_dml.losses.labels import image_ids
from ccp_dml.losses.pairs import Pairs
from ccp_dml.losses.wrapper import ExtendingLoss


@tf.keras.utils.register_keras_serializable("ccp_dml")
class CrossBatchMemory(ExtendingLoss):
    """XBM: the embeddings of the last steps are further references, without gradient.

    With L any pair-based loss, it is
    `pair_weight * L(pairs of the batch) + memory_weight * L(batch against the memory)`; around a wrapper of L
    the first term is the loss of that wrapper. Each call of `components` first writes the raw embeddings of
    the batch over the oldest rows of the memory, so every call has to be a training step. The second term is
    0 until the memory is full and `start_step` steps were made, the present one included.

    Wang, Zhang, Huang, Scott, "Cross-batch memory for embedding learning", CVPR 2020.

    Attributes:
        memory: float32 variable [M, D], raw embeddings.
        memory_labels: int64 variable [M], their classes.
        memory_ids: int64 variable [M], their image ids; for labels without ids, distinct negative numbers.
        rows_written: int64 variable, number of rows written so far; modulo M, the next row to overwrite.
        steps: int64 variable, number of batches written so far.

    Example:
        >>> loss = CrossBatchMemory(
        ...     ccp_dml.losses.Contrastive(), embedding_size=2, memory_size=2, start_step=1
        ... )
        >>> float(loss([0, 0], [[1.0, 0.0], [0.0, 1.0]])) > 0
        True
        >>> loss.memory.numpy().tolist()
        [[1.0, 0.0], [0.0, 1.0]]
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
            memory_size: number M of embeddings in the memory, at least 1; of a larger batch, the last M are
                kept.
            memory_weight: weight of the batch against the memory.
            start_step: first step, counted from 1, whose loss may use the memory.
            exclude_own_copy: never pair a sample with a row of its own image: for labels (class, image id)
                any such row, for labels without ids the copy that this step has written.
            anchors_per_block: if positive, compare this many anchors with the memory at a time, which needs
                less memory and about twice the time.
            **options: `pair_weight` (default 1), `mine_pairs`, `pair_normalization` and `name`, see
                `ExtendingLoss`.

        Raises:
            ValueError: if L needs or has proxies, an option is invalid, or `anchors_per_block` is positive
                and L looks at all anchors at once.
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
        self.memory_labels = per_replica_state(
            tf.fill([memory_size], tf.constant(-1, tf.int64)), name="memory_labels"
        )
        self.memory_ids = per_replica_state(tf.zeros([memory_size], tf.int64), name="memory_ids")
        self.rows_written = per_replica_state(0, tf.int64, "rows_written")
        self.steps = per_replica_state(0, tf.int64, "steps")

    @property
    def memory_in_use(self) -> tf.Tensor:
        """True if the loss of the last step used the memory: bool scalar."""
        return (self.rows_written >= self.memory_size) & (self.steps >= self.start_step)

    def components(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns `memory_loss`, and `pair_loss` or the components of the wrapper inside.

        Writes the batch to the memory.
        """
        classes, embeddings = tf.cast(self.classes(labels), tf.int64), to_float32(embeddings)
        of_batch = self.batch_components(labels, embeddings)
        ids = self._write_to_memory(classes, image_ids(labels), embeddings)
        to_memory = tf.cond(
            self.memory_in_use, lambda: self._against_memory(embeddings, classes, ids), lambda: tf.zeros([])
        )
        return {**of_batch, "memory_loss": self.memory_weight * to_memory}

    def diagnostics(self, labels: tf.Tensor, embeddings: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the figures of the first term, without writing to the memory."""
        return self.batch_diagnostics(labels, embeddings)

    def _write_to_memory(self, classes: tf.Tensor, ids: tf.Tensor | None, embeddings: tf.Tensor) -> tf.Tensor:
        """Writes the batch over the oldest rows; returns its ids."""
        count = tf.shape(embeddings, out_type=tf.int64)[0]
        serial = self.rows_written + tf.range(count)
        ids = -1 - serial if ids is None else ids
        # Of a batch that exceeds the memory, only the last rows stay.
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
        """Returns the innermost loss of the batch against the memory: float32 scalar."""
        core = self.core
        rows = normalize(self.memory.read_value(), core.options.normalization)
        memory = [rows, self.memory_labels.read_value(), self.memory_ids.read_value()]
        if not self.anchors_per_block:
            return core.options.weight * core.formula(self._pairs([embeddings, classes, ids], memory))
        batch_size = tf.shape(embeddings)[0] if embeddings.shape[0] is None else embeddings.shape[0]

        def sums_of_block(points: tf.Tensor, start: Any, size: Any) -> tf.Tensor:
            batch, chosen = [points, classes, ids], start + tf.range(size)
            if core.options.proxy_anchor:
                pairs = self._pairs(batch, [tf.gather(values, chosen) for values in memory])
            else:
                pairs = self._pairs([tf.gather(values, chosen) for values in batch], memory)
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
        """Pairs (raw embeddings, classes, ids) with rows of the memory, whose embeddings are normalised."""
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
