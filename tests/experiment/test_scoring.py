"""Prepared images that a scorer keeps, and embeddings that it cannot score."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.config import ExperimentConfig
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, SmallerBlocks
from ccp_dml.experiment import scoring, single
from ccp_dml.run_directory import RunDirectory
from tests.counted_images import SIDE, collection

BYTES = 12 * SIDE * SIDE


@pytest.fixture
def pipelines(monkeypatch) -> list[int]:
    """The batch sizes of all pipelines that are built."""
    sizes: list[int] = []
    build = scoring.labeled_images

    def counted(images, preprocessing, batch_size, part):
        sizes.append(batch_size)
        return build(images, preprocessing, batch_size, part)

    monkeypatch.setattr(scoring, "labeled_images", counted)
    return sizes


def make_scorer(blocks: SmallerBlocks, images: float, pca_dim: int | None = None) -> scoring.Scorer:
    """Of six queries, four images of a gallery and, for the PCA, five for training; `images` may be kept."""
    config = ExperimentConfig.from_dict({"image_size": SIDE, "test_shorter_side": SIDE, "pca_dim": pca_dim})
    queries, gallery, training = collection(6, 0), collection(4, 1), [collection(5, 2)]
    kept_megabytes = images * BYTES / 1e6
    return scoring.Scorer(config, queries, gallery, training, blocks, kept_megabytes)


EMBEDDER = Embedder(lambda images, training: tf.reduce_mean(images, [1, 2]), "unit")


def test_kept_images_are_prepared_once_by_one_pipeline_each(pipelines):
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


def test_where_memory_is_short_one_copy_is_kept(pipelines):
    blocks = SmallerBlocks(4)
    scorer = make_scorer(blocks, images=10)
    scorer.embed(EMBEDDER)
    blocks.divisor = 4
    for _ in range(2):
        scorer.embed(EMBEDDER)
    assert pipelines == [4, 4, 1, 1]
    kept = [len(batch) for batches in scorer._kept.values() for batch in batches]
    assert kept == [1] * 10


def test_embeddings_that_no_search_can_use_are_the_models_fault_not_the_datas():
    scorer = make_scorer(SmallerBlocks(4), images=10)
    embedded = scorer.embed(Embedder(lambda images, training: images[:, 0, 0] / 0.0, "none"))
    with pytest.raises(scoring.UnusableEmbeddings, match=r"^the model's embeddings .*: 6 of 6 rows are not"):
        scorer.score(embedded)


@pytest.mark.parametrize("saved", [False, True])
def test_training_that_leads_to_such_names_the_step_and_the_last_checkpoint(tmp_path, saved):
    class Diverging:
        step = tf.Variable(7)

        def restore(self) -> None:
            pass

        def fit(self, max_epochs: int) -> None:
            raise scoring.UnusableEmbeddings("the embeddings are odd")

    directory = RunDirectory(tmp_path)
    if saved:
        (directory.checkpoints / "step-6").mkdir(parents=True)
    kept = r"the last checkpoint is .*step-6.*" if saved else "there is no checkpoint"
    with pytest.raises(UserError, match=rf"after step 7 the embeddings are odd; {kept}\. Try a lower"):
        single.fit(Diverging(), ExperimentConfig().resolve(), directory)
