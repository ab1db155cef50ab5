"""Scorers of models on the images of a task, and files of embeddings."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml import files
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.images import TestPreprocessing
from ccp_dml.data.pipeline import InferenceBatches
from ccp_dml.distributed.workers import SINGLE_WORKER, Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES
from ccp_dml.evaluation.embedding import Embedded, Embedder, Evaluation, Projection, SmallerBlocks, fit_pca
from ccp_dml.evaluation.inputs import Floats, NotFiniteError, UnscorableError
from ccp_dml.evaluation.metrics import RetrievalResult, evaluate_retrieval
from ccp_dml.evaluation.options import EvaluationOptions
from ccp_dml.kinds import height_and_width
from ccp_dml.run_directory import EMBEDDED_SETS, RunDirectory, State

# Three channels in float32.
_BYTES_PER_PIXEL = 12
_NO_ROWS = np.zeros((0, 0), np.float32)


class UnusableEmbeddings(UserError):
    """The embeddings of a model are not finite, or too large to be compared."""


class Scorer:
    """Embeds and scores images; with the option `pca_dim`, after a PCA fitted on training images.

    Attributes:
        queries: the images to score.
        gallery: the images that are ranked for each query; None: the queries.
    """

    def __init__(
        self,
        options: EvaluationOptions,
        preprocessing: TestPreprocessing,
        queries: ImageCollection,
        gallery: ImageCollection | None = None,
        *,
        training: Sequence[ImageCollection] = (),
        blocks: SmallerBlocks | None = None,
        kept_megabytes: float = 0.0,
        workers: Workers = SINGLE_WORKER,
    ) -> None:
        """Takes the images.

        Args:
            options: the metrics.
            preprocessing: the resize and crop of all images.
            queries: the images to score.
            gallery: the images that are ranked for each query; None: the queries.
            training: images to fit a PCA on; embedded only with the option `pca_dim`.
            blocks: the number of images to embed at once; None: the option `evaluation_batch_size`.
            kept_megabytes: for a scorer that is used repeatedly: keep the prepared queries and gallery in
                memory if they take no more than this.
            workers: the processes that divide images and queries; all have to call the same functions.
        """
        self._options, self._preprocessing = options, preprocessing
        self.queries, self.gallery = queries, gallery
        self._training = training if options.pca_dim is not None else ()
        self._blocks = blocks or SmallerBlocks(options.evaluation_batch_size)
        self._workers = workers
        local = [workers.local_slice(len(images)) for images in (queries, gallery) if images is not None]
        number = sum(rows.stop - rows.start for rows in local)
        self._keeps_pixels = (
            number * math.prod(height_and_width(preprocessing.image_size)) * _BYTES_PER_PIXEL
            <= kept_megabytes * 1e6
        )
        self._kept: dict[str, tf.data.Dataset] = {}
        self._kept_batch_size = 0

    def __str__(self) -> str:
        """The numbers of images and classes."""
        numbers = [
            f"{len(images):,} {name} of {len(np.unique(images.labels)):,} classes"
            for name, images in (("queries", self.queries), ("gallery images", self.gallery))
            if images is not None
        ]
        return " in ".join(numbers)

    def embed(self, embedder: Embedder) -> Embedded:
        """Embeds the images, and the training images if a PCA needs them."""
        gallery = None if self.gallery is None else self._embedded(embedder, self.gallery, "gallery")
        queries = self._embedded(embedder, self.queries, "queries")
        return Embedded(queries, gallery, self._embedded_training(embedder))

    def fit(self, embedded: Embedded) -> Projection | None:
        """Fits the PCA of the options on the training embeddings; returns None if they have none.

        Raises:
            UserError: if there are fewer training images or dimensions than components.
        """
        dimensions = self._options.pca_dim
        if dimensions is None or embedded.training is None:
            return None
        try:
            return fit_pca(embedded.training, dimensions)
        except UnscorableError as error:
            raise UserError(f"--pca_dim={dimensions}: {error}") from error

    def score(self, embedded: Embedded, projection: Projection | None = None) -> Evaluation:
        """Measures retrieval.

        Args:
            embedded: the embeddings.
            projection: applied to them first; None: none.

        Returns:
            The metrics, with the embeddings after the projection.

        Raises:
            UnusableEmbeddings: if embeddings are not finite.
            UserError: if no query has another image of its class.
        """
        searched = embedded if projection is None else embedded.projected(projection)
        try:
            local = self._blocks(lambda: self._measure(searched))
        except NotFiniteError as error:
            raise UnusableEmbeddings(f"the model's embeddings cannot be searched: {error}") from error
        except UnscorableError as error:
            raise UserError(f"the test images cannot be evaluated: {error}") from error
        result = local
        if self._workers.count > 1:
            result = local.with_columns(self._workers.gather(local.columns()))
        return Evaluation(result, searched.test, searched.gallery)

    def evaluate(self, embedder: Embedder) -> Evaluation:
        """Embeds and scores the images, without a PCA."""
        return self.score(self.embed(embedder))

    def _measure(self, embedded: Embedded) -> RetrievalResult:
        options, gallery = self._options, self.gallery
        return evaluate_retrieval(
            embedded.test,
            self.queries.labels,
            None if gallery is None else self.queries.image_ids,
            embedded.gallery,
            None if gallery is None else gallery.labels,
            None if gallery is None else gallery.image_ids,
            recall_at=options.recall_at,
            precision_at=options.precision_at,
            map_at=options.map_at,
            memory_bytes=DEFAULT_MEMORY_BYTES // self._blocks.divisor,
            subset=self._workers.local_slice(len(embedded.test)),
        )

    def _embedded(self, embedder: Embedder, images: ImageCollection, kept_as: str | None = None) -> Floats:
        """Embeds images; batches with a name may be kept."""
        local = self._workers.local_slice(len(images))
        rows = _NO_ROWS
        if local.start < local.stop:
            # Between two exchanges, a worker may repeat its work in smaller blocks.
            rows = self._blocks(lambda: embedder(self._batches(images, local, kept_as)))
        return self._workers.gather(rows)

    def _batches(self, images: ImageCollection, local: slice, kept_as: str | None) -> Iterable[tf.Tensor]:
        size = self._blocks.batch_size
        if kept_as is None:
            return InferenceBatches(images, self._preprocessing, size).of(local)
        if size != self._kept_batch_size:
            # Memory became short: the larger batches must not stay beside the smaller ones.
            self._kept.clear()
            self._kept_batch_size = size
        if kept_as not in self._kept:
            batches = InferenceBatches(images, self._preprocessing, size).of(local)
            self._kept[kept_as] = batches.cache() if self._keeps_pixels else batches
        return self._kept[kept_as]

    def _embedded_training(self, embedder: Embedder) -> Floats | None:
        """Training embeddings in the order of the image ids, which does not depend on the fold."""
        if not self._training:
            return None
        embeddings = np.concatenate([self._embedded(embedder, images) for images in self._training])
        return embeddings[np.argsort(np.concatenate([images.image_ids for images in self._training]))]


def write_embeddings(directory: RunDirectory, embedded: Embedded) -> None:
    """Writes the embeddings of a run, for the report on its group."""
    for name, embeddings in zip(EMBEDDED_SETS, (embedded.test, embedded.gallery, embedded.training)):
        if embeddings is not None:
            content = io.BytesIO()
            np.save(content, embeddings, allow_pickle=False)
            files.write_bytes(directory.embeddings(name), content.getvalue())


def read_embeddings(directory: RunDirectory) -> Embedded:
    """Reads the files of `write_embeddings`.

    Raises:
        UserError: if a file is damaged or missing.
    """
    is_finished = directory.state is State.FINISHED
    checksums = directory.read_results().get("checksums", {}) if is_finished else {}
    test, gallery, training = (_read(directory.embeddings(name), checksums) for name in EMBEDDED_SETS)
    if test is None:
        raise UserError(f"{directory.embeddings('test')}: expected the test embeddings of this run")
    return Embedded(test, gallery, training)


def _read(file: Path, checksums: Mapping[str, str]) -> Floats | None:
    """Reads a file of embeddings; returns None if the run has none of that name."""
    if file.name not in checksums and not file.exists():
        return None
    try:
        content = file.read_bytes()
        if files.checksum(content) == checksums.get(file.name, files.checksum(content)):
            return np.load(io.BytesIO(content), allow_pickle=False)
        reason = "it was damaged or changed, as its checksum does not match"
    except (OSError, ValueError, EOFError) as error:
        reason = str(getattr(error, "strerror", None) or error)
    raise UserError(
        f"{file}: expected the embeddings of this run: {reason}; without results.json beside it, the command "
        "that trained the run writes it again"
    )
