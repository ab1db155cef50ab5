"""Runs as they are built from flags."""

from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.data.collection import ImageCollection, InMemoryRecords
from ccp_dml.data.options import BatchOptions, ImageOptions
from ccp_dml.distributed.workers import SINGLE_WORKER
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder
from ccp_dml.experiment.build import build, build_trainer, make_batches
from ccp_dml.models.embedding_model import with_test_crops
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.gradients import AverageRegularization
from tests.data.conftest import encode, smooth_pixels
from tests.experiment.conftest import PER_CLASS

# The first fold of three validates on the last three of the seven training classes.
FOLD = ("--num_folds=3", "--fold=1")


# Seven classes train, seven test.
@pytest.mark.parametrize("split, expected", [("test", 7 * PER_CLASS), ("validation", 3 * PER_CLASS)])
def test_the_monitored_images_are_those_that_are_scored(configured, tmp_path, split, expected):
    run = build(configured(tmp_path, f"--monitor_split={split}", *FOLD))
    assert run.monitored is not None
    assert len(run.monitored.queries) == expected
    scores = run.monitored_scores()
    assert run.monitored_embeddings.shape == (expected, 8)
    scorer = run.test if split == "test" else run.validation
    evaluation = scorer.evaluate(run.embedder)
    assert scores == {**scores, **evaluation.result.scalars()}
    assert set(scores) - set(evaluation.result.scalars()) == {"mean_cosine"}


def test_kept_validation_images_give_the_same_scores(configured, tmp_path):
    kept, read = (
        build(configured(tmp_path, *FOLD, f"--validation_cache_mb={megabytes}")) for megabytes in (100, 0)
    )
    expected = read.validation.evaluate(read.embedder)
    for _ in range(2):
        found = kept.validation.evaluate(kept.embedder)
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
        assert found.result.means() == expected.result.means()


def test_test_crops_are_averaged_in_the_evaluation(configured, tmp_path):
    flags = ("--backbone_options=stages=2,blocks=1", "--normalization=l1", "--pooling=gem")
    run = build(configured(tmp_path, *flags, "--test_crops=2"))
    expected, without_crops = (
        run.test.embed(Embedder(model, "l1")).test for model in (with_test_crops(run.model, 2), run.model)
    )
    found = run.test.evaluate(run.embedder).embeddings
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - without_crops).max() > 1e-3


def test_training_images_are_embedded_by_their_index(configured, tmp_path):
    run = build(configured(tmp_path))
    embed_images = run.training_image_embedder("unit")
    embeddings = embed_images(np.array([3, 0, 3]))
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(embeddings[0], embeddings[2], rtol=1e-5, atol=1e-6)
    assert np.abs(embeddings[0] - embeddings[1]).max() > 1e-4


@pytest.mark.parametrize("preprocessing", ["dml", "cifar", "mnist"])
def test_height_and_width_of_the_images_may_differ(configured, tmp_path, preprocessing):
    run = build(configured(tmp_path, "--image_size=32x16", f"--preprocessing={preprocessing}"))
    assert run.model.input_shape == (None, 32, 16, 3)
    config = run.config
    batches = make_batches(config.batches, config.images, run.task.train, seed=0, workers=SINGLE_WORKER)
    images, _ = next(iter(batches(0)))
    assert images.shape[1:] == (32, 16, 3)
    assert run.training_image_embedder("unit")(np.array([3])).shape == (1, run.model.output_shape[1])


@pytest.mark.parametrize(
    "flag, message",
    [
        ("--backbone_layer=stage1", "--backbone_layer=stage1 --pooling=gem: 'stage1' is no layer of"),
        ("--frozen_layers=stage9", "--frozen_layers=stage9 --pooling=gem: 'stage9' matches no layer of"),
    ],
)
def test_layers_that_do_not_exist_are_refused_before_the_data_is_read(configured, tmp_path, flag, message):
    config = configured(tmp_path, "--pooling=gem", flag).replace(data_dir="/nonexistent")
    with pytest.raises(UserError, match=f"^--backbone=cifar_resnet .*{message}"):
        build(config)


@pytest.mark.parametrize(
    "flags, expected", [([], 0), (["--ema_attraction=0.1"], 1), (["--ema_repulsion=0.1"], 1)]
)
def test_weights_are_regularised_by_their_averages_if_asked_for(configured, tmp_path, flags, expected):
    run = build(configured(tmp_path, *flags))
    trainer = build_trainer(run, RunDirectory(tmp_path))
    found = [module for module in trainer.state.values() if isinstance(module, AverageRegularization)]
    assert len(found) == expected
    assert all(len(module.averages) == len(run.model.trainable_variables) for module in found)


@pytest.mark.parametrize("augment", [False, True])
def test_representatives_look_the_same_in_every_batch_unless_augmented(augment):
    encoded = [encode(smooth_pixels(20, 20, index), "PNG") for index in range(60)]
    images = ImageCollection(
        np.repeat(np.arange(12), 5),
        tuple(map(str, range(12))),
        np.arange(60),
        InMemoryRecords(encoded),
        np.arange(60),
    )
    batches = make_batches(
        BatchOptions(
            classes_per_batch=12,
            samples_per_class=2,
            representative_lifetime=3,
            augment_representatives=augment,
        ),
        ImageOptions(image_size=16, preprocessing="cifar"),
        images,
        seed=0,
        workers=SINGLE_WORKER,
    )
    pixels = {}
    for batch, labels in batches(0).take(3):
        for image, label in zip(batch.numpy()[:12], labels.numpy()[:12, 0].tolist()):
            pixels.setdefault(label, []).append(image)
    same = [all(np.array_equal(image, views[0]) for image in views) for views in pixels.values()]
    assert len(same) == 12
    assert all(same) is not augment
