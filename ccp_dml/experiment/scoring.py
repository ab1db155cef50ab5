"""Scores of embeddings on the test images of a data set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from ccp_dml.config import ExperimentConfig
from ccp_dml.data.collection import ImageCollection
from ccp_dml.data.pipeline import KeptBatches
from ccp_dml.distributed.workers import ALONE, Workers
from ccp_dml.errors import UserError
from ccp_dml.evaluation.blocks import DEFAULT_MEMORY_BYTES
from ccp_dml.evaluation.embedding import Embedded, Embedder, Evaluation, Projection, SmallerBlocks, fit_pca
from ccp_dml.evaluation.inputs import Floats, NotFiniteError, UnscorableError
from ccp_dml.evaluation.metrics import RetrievalResult, evaluate_retrieval
from ccp_dml.experiment import parts
from ccp_dml.experiment.task import Task, labeled_images
from ccp_dml.run_directory import EMBEDDED_PARTS, RunDirectory

# Three channels in float32.
_BYTES_OF_PIXEL = 12
_NO_ROWS = np.zeros((0, 0), np.float32)


class UnusableEmbeddings(UserError):
    """The embeddings of a model are not finite, or so large that their distances are not."""


class Scorer:
    """Embeds and scores test images; with `--pca_dim`, after a PCA of the embeddings of training images.

    Attributes:
        queries: the test images.
        gallery: the images that are ranked, or None: the queries themselves.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        queries: ImageCollection,
        gallery: ImageCollection | None = None,
        training: Sequence[ImageCollection] = (),
        blocks: SmallerBlocks | None = None,
        kept_megabytes: float = 0.0,
        workers: Workers = ALONE,
    ) -> None:
        """Takes the images.

        Args:
            config: how they are prepared and what is measured.
            queries: see above.
            gallery: see above.
            training: images to fit a PCA on; embedded only if the configuration asks for one.
            blocks: how much is in memory at once; None: as `--evaluation_batch_size` says.
            kept_megabytes: keep the prepared test images in memory if they do not take more, for a scorer
                that is used again and again.
            workers: who divide the images and the queries among them; all have to call the same functions.
        """
        self._blocks = blocks or SmallerBlocks(config.evaluation.evaluation_batch_size)
        self.queries, self.gallery = queries, gallery
        self._config = config
        self._training = training if config.evaluation.pca_dim is not None else ()
        side = config.data.image_size
        assert side is not None
        self._workers = workers
        shares = [workers.share(len(images)) for images in (queries, gallery) if images is not None]
        number = sum(share.stop - share.start for share in shares)
        self._keeps = number * side * side * _BYTES_OF_PIXEL <= kept_megabytes * 1e6
        self._kept: dict[str, KeptBatches] = {}
        self._kept_batch_size = 0

    @classmethod
    def of_test(
        cls,
        config: ExperimentConfig,
        task: Task,
        blocks: SmallerBlocks | None = None,
        workers: Workers = ALONE,
    ) -> Scorer:
        """On the test images; a PCA is fitted on all images of the training split, whatever the fold."""
        return cls(config, task.test, task.gallery, task.training_split, blocks, workers=workers)

    def embed(self, embedder: Embedder) -> Embedded:
        """Embeds the images."""
        gallery = None if self.gallery is None else self._embedded(embedder, self.gallery, "gallery")
        queries = self._embedded(embedder, self.queries, "queries")
        return Embedded(queries, gallery, self._embedded_training(embedder))

    def fit(self, embedded: Embedded) -> Projection | None:
        """The PCA that the configuration asks for, fitted on the training embeddings; None without.

        Raises:
            UserError: if there are fewer training images or dimensions than components.
        """
        dimensions = self._config.evaluation.pca_dim
        if dimensions is None or embedded.training is None:
            return None
        try:
            return fit_pca(embedded.training, dimensions)
        except UnscorableError as error:
            raise UserError(f"--pca_dim={dimensions}: {error}") from error

    def score(self, embedded: Embedded, projection: Projection | None = None) -> Evaluation:
        """Measures retrieval; the embeddings of the result are those that were searched.

        Raises:
            UnusableEmbeddings: if embeddings are not finite.
            UserError: if no query has another image of its class.
        """
        searched = embedded if projection is None else embedded.projected(projection)
        try:
            own = self._blocks(lambda: self._measure(searched))
            found = own.with_columns(self._workers.gather(own.columns())) if self._workers.count > 1 else own
            return Evaluation(found, searched.test, searched.gallery)
        except NotFiniteError as error:
            raise UnusableEmbeddings(f"the model's embeddings cannot be searched: {error}") from error
        except UnscorableError as error:
            raise UserError(f"--dataset={self._config.data.dataset} cannot be evaluated: {error}") from error

    def _measure(self, embedded: Embedded) -> RetrievalResult:
        flags, gallery = self._config.evaluation, self.gallery
        return evaluate_retrieval(
            embedded.test,
            self.queries.labels,
            None if gallery is None else self.queries.image_ids,
            embedded.gallery,
            None if gallery is None else gallery.labels,
            None if gallery is None else gallery.image_ids,
            recall_at=flags.recall_at,
            precision_at=flags.precision_at,
            map_at=flags.map_at,
            memory_bytes=DEFAULT_MEMORY_BYTES // self._blocks.divisor,
            part=self._workers.share(len(embedded.test)),
        )

    def _embedded(self, embedder: Embedder, images: ImageCollection, part: str | None = None) -> Floats:
        """Embeds images; those of a `part`, "queries" or "gallery", may be kept."""
        own = self._workers.share(len(images))
        # Only what lies between two exchanges may be repeated in smaller blocks.
        is_empty = own.start == own.stop
        rows = _NO_ROWS if is_empty else self._blocks(lambda: embedder(self._batches(images, own, part)))
        return self._workers.gather(rows)

    def _batches(self, images: ImageCollection, own: slice, part: str | None) -> Iterable[tf.Tensor]:
        batch_size = self._blocks.batch_size
        if part is None or not self._keeps:
            return self._prepared(images, own, batch_size)
        if batch_size != self._kept_batch_size:
            # Memory was short: the larger batches would stay beside the smaller ones.
            self._kept.clear()
            self._kept_batch_size = batch_size
        if part not in self._kept:
            self._kept[part] = KeptBatches(self._prepared(images, own, batch_size))
        return self._kept[part]

    def _prepared(self, images: ImageCollection, own: slice, batch_size: int) -> Iterable[tf.Tensor]:
        return labeled_images(images, parts.test_preprocessing(self._config.data), batch_size, own).batches

    def _embedded_training(self, embedder: Embedder) -> Floats | None:
        """In the order of the image ids: the models of several folds divide the same images differently."""
        if not self._training:
            return None
        embeddings = np.concatenate([self._embedded(embedder, images) for images in self._training])
        return embeddings[np.argsort(np.concatenate([images.image_ids for images in self._training]))]


def write_embeddings(directory: RunDirectory, embedded: Embedded) -> None:
    """Keeps the embeddings of a run, for a group's report."""
    for name, part in zip(EMBEDDED_PARTS, embedded.parts):
        if part is not None:
            np.save(directory.embeddings(name), part, allow_pickle=False)


def read_embeddings(directory: RunDirectory) -> Embedded:
    """Reads what `write_embeddings` wrote.

    Raises:
        UserError: the file is damaged or missing.
    """
    test, gallery, training = (_read(directory.embeddings(name)) for name in EMBEDDED_PARTS)
    if test is None:
        raise UserError(f"{directory.embeddings('test')}: expected the test embeddings of this run")
    return Embedded(test, gallery, training)


def _read(file: Path) -> Floats | None:
    try:
        return np.load(file, allow_pickle=False) if file.exists() else None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: expected the embeddings of this run: {error}") from error
