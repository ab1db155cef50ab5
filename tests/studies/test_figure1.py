"""Measures, recording and committed measurements of the study of figure 1."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import numpy as np
import pytest

from ccp_dml.datasets.fashion_mnist import source
from studies.figure1 import data, measures, run, training

CLASSES, PER_CLASS, PROXIES, SIZE = 3, 5, 4, 2


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings and labels in no order, and proxies."""
    generator = np.random.default_rng(3)
    labels = generator.permutation(np.repeat(np.arange(CLASSES), PER_CLASS))
    embeddings = generator.normal(size=(len(labels), SIZE)) * (1 + labels[:, None])
    proxies = generator.normal(size=(PROXIES, CLASSES, SIZE))
    return embeddings.astype(np.float32), labels, proxies.astype(np.float32)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return math.sqrt(sum((float(a) - float(b)) ** 2 for a, b in zip(first, second, strict=True)))


def mean_distance(points: list[np.ndarray]) -> float:
    pairs = [distance(points[i], points[j]) for i in range(len(points)) for j in range(i)]
    return sum(pairs) / len(pairs)


def nearest_distances(embeddings: np.ndarray, labels: np.ndarray, proxies: np.ndarray, label: int) -> list:
    images = [point for point, own in zip(embeddings, labels, strict=True) if own == label]
    return [min(distance(point, proxies[k][label]) for k in range(PROXIES)) for point in images]


def test_coverage_equals_loops(scene):
    embeddings, labels, proxies = scene
    radii, shares, spreads, units = [], [], [], []
    for label in range(CLASSES):
        unit = mean_distance([p for p, own in zip(embeddings, labels, strict=True) if own == label])
        nearest = sorted(nearest_distances(embeddings, labels, proxies, label))
        radii.append(nearest[-1] / unit)
        # Of 5 images, 95 % lie 0.8 of the way from the last but one to the last.
        shares.append((nearest[-2] + 0.8 * (nearest[-1] - nearest[-2])) / unit)
        spreads.append(mean_distance([proxies[k][label] for k in range(PROXIES)]) / unit)
        units.append(unit)
    expected = {"radius": radii, "radius_95": shares, "proxy_spread": spreads, "class_spread": units}
    found = measures.coverage(embeddings, labels, proxies)
    assert found == pytest.approx({name: sum(v) / CLASSES for name, v in expected.items()}, rel=1e-5)


def test_the_radius_of_all_images_is_the_covering_radius(scene):
    embeddings, labels, proxies = scene
    found = measures.quantile_radius(embeddings, labels, proxies, quantile=1.0)
    expected = [max(nearest_distances(embeddings, labels, proxies, label)) for label in range(CLASSES)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_coverage_does_not_depend_on_scale_and_place(scene):
    embeddings, labels, proxies = scene
    before = measures.coverage(embeddings, labels, proxies)
    after = measures.coverage(7 * embeddings + 2, labels, 7 * proxies + 2)
    assert after.pop("class_spread") == pytest.approx(7 * before.pop("class_spread"), rel=1e-4)
    assert after == pytest.approx(before, rel=1e-4)


def test_proxies_that_coincide_have_no_spread(scene):
    embeddings, labels, proxies = scene
    together = np.repeat(proxies[:1], PROXIES, axis=0)
    assert measures.coverage(embeddings, labels, together)["proxy_spread"] == 0


def test_accuracy_of_the_nearest_proxy_equals_loops(scene):
    embeddings, labels, proxies = scene
    right = 0
    for point, label in zip(embeddings, labels, strict=True):
        of_class = [min(distance(point, proxies[k][c]) for k in range(PROXIES)) for c in range(CLASSES)]
        right += of_class.index(min(of_class)) == label
    assert 0 < right < len(labels)
    found = measures.nearest_proxy_accuracy(embeddings, labels, proxies)
    assert found == pytest.approx(right / len(labels))


def test_preprocessing_is_centred_and_has_one_channel():
    images = np.array([[[0, 255], [51, 204]]], np.uint8)
    found = data.preprocess(images).numpy()
    np.testing.assert_allclose(found, [[[[-0.5], [0.5]], [[-0.3], [0.3]]]], atol=1e-6)


@pytest.fixture(scope="module")
def recorders() -> dict[str, training.Recorder]:
    """Two instances of two epochs of one step, and one instance as long, on the dummy data."""
    splits = data.load(str(pathlib.Path(source.__file__).with_name("dummy_data")))
    short = dataclasses.replace(
        run.CCP,
        steps_per_epoch=1,
        epochs=4,
        epochs_per_instance=2,
        samples_per_class=1,
        proxies_per_class=2,
        pool_size=2,
        measured_per_class=2,
    )
    one = dataclasses.replace(short, epochs_per_instance=5)
    return {
        name: training.train(splits, setting, 0, steps_per_picture=2)
        for name, setting in {"one": one, "ccp": short}.items()
    }


def test_old_and_new_proxies_are_recorded(recorders):
    moments = [(row["step"], row["instance"], row["proxies"]) for row in recorders["ccp"].curve]
    assert moments == [
        (0, 1, "chosen"),
        (1, 1, "trained"),
        (2, 1, "trained"),
        (2, 2, "chosen"),
        (3, 2, "trained"),
        (4, 2, "trained"),
        (4, 3, "chosen"),
    ]
    assert [set(picture) for picture in recorders["ccp"].pictures] == [{"embeddings", "old", "new"}] * 2
    assert [set(picture) for picture in recorders["one"].pictures] == [{"embeddings", "old"}] * 2
    picture = recorders["ccp"].pictures[1]
    assert not np.allclose(picture["old"], picture["new"])
    # New proxies are images of their class; with a pool of all images they are among those measured.
    for label in range(data.CLASSES):
        images = picture["embeddings"].reshape(data.CLASSES, 2, 2)[label]
        for proxy in picture["new"][:, label]:
            assert min(distance(proxy, image) for image in images) < 1e-5


def test_the_first_instance_is_the_same_for_both(recorders):
    for one, ccp in zip(recorders["one"].curve[:3], recorders["ccp"].curve[:3], strict=True):
        assert one == ccp
    assert recorders["one"].curve[-1] != recorders["ccp"].curve[-2]


def test_the_committed_measurements_are_those_of_the_committed_settings():
    measurements = json.loads(run.MEASUREMENTS.read_text())
    assert measurements["steps_per_instance"] == run.STEPS_PER_INSTANCE
    found = {arm: found["setting"] for arm, found in measurements["runs"].items()}
    assert found == {arm: dataclasses.asdict(setting) for arm, setting in run.ARMS.items()}
