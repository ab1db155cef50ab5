"""Prepared images that a scorer keeps, and embeddings that it cannot score."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.data.images import TestPreprocessing
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedded, Embedder, SmallerBlocks
from ccp_dml.evaluation.metrics import evaluate_retrieval
from ccp_dml.evaluation.options import EvaluationOptions
from ccp_dml.experiment import scoring
from ccp_dml.experiment.scoring import Scorer, read_embeddings, write_embeddings
from ccp_dml.run_directory import RunDirectory
from tests.data.counted_images import SIDE, collection

BYTES = 12 * SIDE * SIDE


@pytest.fixture
def pipelines(monkeypatch) -> list[int]:
    """Batch sizes of all pipelines that are built."""
    sizes: list[int] = []
    build = scoring.InferenceBatches

    def counted(images, preprocessing, batch_size):
        sizes.append(batch_size)
        return build(images, preprocessing, batch_size)

    monkeypatch.setattr(scoring, "InferenceBatches", counted)
    return sizes


def make_scorer(blocks: SmallerBlocks, images: float, pca_dim: int | None = None) -> Scorer:
    """Scores six queries in a gallery of four images and keeps `images` of them; five more train a PCA."""
    return Scorer(
        EvaluationOptions(pca_dim=pca_dim),
        TestPreprocessing(SIDE, SIDE),
        collection(6, 0),
        collection(4, 1),
        training=[collection(5, 2)],
        blocks=blocks,
        kept_megabytes=images * BYTES / 1e6,
    )


EMBEDDER = Embedder(lambda images, training: tf.reduce_mean(images, [1, 2]), "unit")


def test_images_are_ranked_among_themselves_or_in_a_gallery_without_themselves():
    queries, everything = collection(6, 0), collection(6, 0)
    options, preprocessing = EvaluationOptions(recall_at=(1, 3)), TestPreprocessing(SIDE, SIDE)
    among_themselves = Scorer(options, preprocessing, queries).evaluate(EMBEDDER)
    in_gallery = Scorer(options, preprocessing, queries, everything).evaluate(EMBEDDER)
    expected = evaluate_retrieval(among_themselves.embeddings, queries.labels, recall_at=(1, 3))
    assert among_themselves.result.means() == in_gallery.result.means() == expected.means()
    assert among_themselves.gallery_embeddings is None
    assert in_gallery.gallery_embeddings.shape == (6, 3)


def test_kept_images_are_prepared_once(pipelines):
    scorer = make_scorer(SmallerBlocks(4), images=10)
    found = [scorer.embed(EMBEDDER) for _ in range(3)]
    assert pipelines == [4, 4]
    assert (scorer.queries.source.read, scorer.gallery.source.read) == (6, 4)
    for again in found[1:]:
        np.testing.assert_array_equal(again.test, found[0].test)
        np.testing.assert_array_equal(again.gallery, found[0].gallery)


def test_images_above_the_budget_are_not_kept(pipelines):
    scorer = make_scorer(SmallerBlocks(4), images=9)
    for _ in range(2):
        scorer.embed(EMBEDDER)
    assert (scorer.queries.source.read, scorer.gallery.source.read) == (12, 8)


def test_training_images_are_not_in_the_budget_and_not_kept(pipelines):
    scorer = make_scorer(SmallerBlocks(4), images=10, pca_dim=2)
    (training,) = scorer._training
    for _ in range(2):
        assert scorer.embed(EMBEDDER).training.shape == (5, 3)
    assert (scorer.queries.source.read, scorer.gallery.source.read, training.source.read) == (6, 4, 10)


def test_smaller_batches_replace_the_kept_ones(pipelines):
    blocks = SmallerBlocks(4)
    scorer = make_scorer(blocks, images=10)
    scorer.embed(EMBEDDER)
    blocks.divisor = 4
    for _ in range(2):
        scorer.embed(EMBEDDER)
    assert pipelines == [4, 4, 1, 1]
    kept = [len(batch) for batches in scorer._kept.values() for batch in batches]
    assert kept == [1] * 10


def test_unusable_embeddings_are_an_error_of_the_model():
    scorer = make_scorer(SmallerBlocks(4), images=10)
    embedded = scorer.embed(Embedder(lambda images, training: images[:, 0, 0] / 0.0, "none"))
    with pytest.raises(scoring.UnusableEmbeddings, match=r"^the model's embeddings .*: 6 of 6 rows are not"):
        scorer.score(embedded)


def test_embeddings_are_written_and_read(tmp_path):
    directory, rows = RunDirectory(tmp_path), np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    with pytest.raises(UserError, match=r"test_embeddings\.npy: expected the test embeddings"):
        read_embeddings(directory)
    for kept in (Embedded(rows[:2], rows[2:5], rows[5:]), Embedded(rows)):
        folder = tmp_path / str(len(kept.test))
        folder.mkdir()
        write_embeddings(RunDirectory(folder), kept)
        found = read_embeddings(RunDirectory(folder))
        for name in ("test", "gallery", "training"):
            np.testing.assert_equal(getattr(found, name), getattr(kept, name))
    directory.embeddings("test").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"test_embeddings\.npy: expected the embeddings of this run: "):
        read_embeddings(directory)
