"""Labels of every loss: compared exactly in their own dtype, refused if they cannot be class numbers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from ccp_dml.losses import registry
from ccp_dml.losses.base import MetricLoss
from ccp_dml.losses.labels import class_labels, image_ids
from tests.losses.cases import BASIC, NESTED, NUM_CLASSES, SIZE, WRAPPED, LossCase, batch

_CASES = [*BASIC, *WRAPPED, *NESTED]
_EACH = pytest.mark.parametrize("case", _CASES, ids=lambda case: case.id)
_LABELS, _EMBEDDINGS = batch(3)

# Pairs of different labels that are equal in a dtype with fewer values, or in float32 or float64.
_DISTINCT = {
    "int32 wraps": np.array([7, 2**32 + 7], np.int64),
    "int32 wraps to a negative label": np.array([-1, 2**32 - 1], np.int64),
    "uint32": np.array([5, 2**31 + 5], np.uint32),
    "float64 rounds": np.array([2**53, 2**53 + 1], np.int64),
    "uint64 beyond int64": np.array([2**63, 2**63 + 1], np.uint64),
    "uint64 and its int64": np.array([1, 2**64 - 1], np.uint64),
    "int8": np.array([-1, 127], np.int8),
    "uint16": np.array([1, 65535], np.uint16),
    "Python integers": [7, 2**32 + 7],
}
_FREE = [case for case in _CASES if case.build().label_limit is None]
_LIMITED = [case for case in _CASES if case.build().label_limit is not None]


@pytest.mark.parametrize("values", _DISTINCT.values(), ids=list(_DISTINCT))
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_different_labels_are_different_classes(values: Any, compiled: bool) -> None:
    loss = LossCase("triplet", {"margin": 5.0, "average": "all"}).build()
    labels = np.array([0, 0, 1, 1])
    call = tf.function(loss, jit_compile=True) if compiled else loss
    points = tf.constant(_EMBEDDINGS[:4])
    expected = call(tf.constant(labels, tf.int32), points)
    assert float(expected) > 0.0
    given = [values[label] for label in labels] if isinstance(values, list) else values[labels]
    np.testing.assert_allclose(call(tf.convert_to_tensor(given), points), expected, rtol=1e-6)


@pytest.mark.parametrize("case", _FREE, ids=lambda case: case.id)
def test_wide_labels_give_the_loss_of_class_numbers(case: LossCase) -> None:
    """Over several batches, so that memories hold them."""
    loss, other = case.build(), case.build()
    names = np.array([2**40, 2**40 + 2**32, 2**33, 2**34, 5])
    for seed in range(3):
        labels, embeddings = batch(seed)
        assert loss(names[labels], embeddings).numpy() == other(labels, embeddings).numpy()


@pytest.mark.parametrize("dtype", [np.int64, np.uint64])
def test_image_ids_are_compared_exactly(dtype: Any) -> None:
    ids = image_ids(np.array([[0, 2**53], [0, 2**53 + 1], [1, 7]], dtype)).numpy()
    assert len(set(ids)) == 3


_REFUSED = {
    "float32": np.array([0.2, 0.7] * 6, np.float32),
    "float64": np.array([0.0, 1.0] * 6),
    "nan": np.full(12, np.nan, np.float32),
    "strings": np.array(["a", "b"] * 6),
    "bool": np.array([True, False] * 6),
    "complex128": np.zeros(12, np.complex128),
    "ids of floats": np.zeros((12, 2), np.float32),
}


@pytest.mark.parametrize("labels", _REFUSED.values(), ids=list(_REFUSED))
@_EACH
def test_labels_that_are_no_integers_are_refused_with_their_dtype(case: LossCase, labels: Any) -> None:
    name = tf.convert_to_tensor(labels).dtype.name
    for call in (case.build(), case.build().components, case.build().diagnostics):
        with pytest.raises(ValueError, match=f"labels have the dtype {name}; expected integers"):
            call(labels, _EMBEDDINGS)


def test_labels_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\[B, 2\]"):
        class_labels(np.zeros((2, 3), np.int32))


_OUTSIDE = {
    "all": np.full(12, 9),
    "negative": np.where(np.arange(12) == 5, -1, _LABELS),
    "the number of classes": np.where(np.arange(12) == 0, NUM_CLASSES, _LABELS).astype(np.int8),
    "wraps to 0": np.where(np.arange(12) == 11, 2**32, _LABELS),
    "beyond int64": np.where(np.arange(12) == 1, 2**63, _LABELS.astype(np.uint64)),
}


@pytest.mark.parametrize("labels", _OUTSIDE.values(), ids=list(_OUTSIDE))
@pytest.mark.parametrize("case", _LIMITED, ids=lambda case: case.id)
def test_labels_out_of_range_are_refused(case: LossCase, labels: np.ndarray) -> None:
    [outside] = {int(label) for label in labels if not 0 <= label < NUM_CLASSES}
    for call in (case.build(), case.build().components, case.build().diagnostics):
        with pytest.raises(ValueError, match=f"a label is {outside}; expected 0..{NUM_CLASSES - 1}"):
            call(labels, _EMBEDDINGS)


@pytest.mark.parametrize(
    "case, dtype",
    [*((case, np.int64) for case in _LIMITED), (_LIMITED[0], np.int32), (_LIMITED[0], np.uint8)],
    ids=lambda value: getattr(value, "id", None),
)
def test_labels_out_of_range_stop_a_graph(case: LossCase, dtype: Any) -> None:
    call = tf.function(
        case.build(), input_signature=[tf.TensorSpec([None], dtype), tf.TensorSpec([None, SIZE])]
    )
    assert np.isfinite(call(_LABELS.astype(dtype), _EMBEDDINGS))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a label is\] \[77\].*expected 0\.\.4"):
        call(np.where(np.arange(12) == 5, 77, _LABELS).astype(dtype), _EMBEDDINGS)


def _model(loss: MetricLoss) -> tf.keras.Model:
    inputs = tf.keras.Input([SIZE])
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(SIZE)(inputs))
    model.compile(optimizer="sgd", loss=loss)
    return model


def test_labels_out_of_range_stop_fit() -> None:
    model = _model(LossCase("proxy_nca").build())
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"a label is\] \[9\]"):
        model.fit(_EMBEDDINGS, np.full(12, 9), verbose=0)


def test_optimised_python_leaves_the_assertion_out() -> None:
    code = """
import tensorflow as tf
from ccp_dml.losses.labels import class_labels
check = tf.function(lambda labels: class_labels(labels, 3), input_signature=[tf.TensorSpec([None], tf.int32)])
print(check(tf.constant([0, 7])).numpy())
"""
    command = [sys.executable, "-O", "-c", code]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[0 7]\n"


def test_proxies_shared_with_another_loss_limit_the_labels() -> None:
    other = registry.build("proxy_nca", num_classes=3, embedding_size=SIZE)
    loss = registry.load("ccp_dml.losses.contrastive:Contrastive")(shared_proxies=[other.proxies])
    with pytest.raises(ValueError, match=r"a label is 3; expected 0\.\.2"):
        loss([0, 1, 3], _EMBEDDINGS[:3])


_WEIGHTS = np.ones(12, np.float32)
_WEIGHTED: dict[str, Callable[[tf.keras.Model], Any]] = {
    "fit": lambda model: model.fit(_EMBEDDINGS, _LABELS, sample_weight=_WEIGHTS, verbose=0),
    "class weights": lambda model: model.fit(
        _EMBEDDINGS, _LABELS, class_weight={0: 2.0, 1: 1.0, 2: 1.0, 3: 1.0}, verbose=0
    ),
    "evaluate": lambda model: model.evaluate(_EMBEDDINGS, _LABELS, sample_weight=_WEIGHTS, verbose=0),
    "data set": lambda model: model.fit(
        tf.data.Dataset.from_tensors((_EMBEDDINGS, _LABELS, _WEIGHTS)), verbose=0
    ),
    "call": lambda model: model.loss(_LABELS, _EMBEDDINGS, sample_weight=_WEIGHTS),
}


@pytest.mark.parametrize("path", ["contrastive", "ccp/triplet"])
@pytest.mark.parametrize("call", _WEIGHTED.values(), ids=list(_WEIGHTED))
def test_sample_weights_are_refused(path: str, call: Callable[[tf.keras.Model], Any]) -> None:
    with pytest.raises(ValueError, match="sample_weight or class_weight is given; expected neither"):
        call(_model(LossCase(path).build()))
