"""Metrics against brute force, scikit-learn, recorded values of pytorch-metric-learning, and by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from ccp_dml.evaluation.inputs import UnscorableError
from ccp_dml.evaluation.metrics import RetrievalResult, evaluate_retrieval
from tests.evaluation import accuracy_calculator, oracle

RECALL, PRECISION, MAP = (1, 2, 5, 40), (1, 3), (1, 4, 60)


def columns(result: RetrievalResult) -> dict[str, np.ndarray]:
    named = {
        name: getattr(result, name) for name in ("precision_at_1", "r_precision", "map_at_r", "recall_at_r")
    }
    for prefix in ("recall", "precision", "map"):
        named |= {f"{prefix}_at_{k}": v for k, v in getattr(result, f"{prefix}_at_k").items()}
    return named


def random_problem(seed: int) -> dict[str, np.ndarray]:
    """A problem with unbalanced classes, some of one image; a third have ties, a third have copies.

    Float32 represents all distances exactly, so no rounding decides a ranking.
    """
    rng = np.random.default_rng(seed)
    size, dimension = int(rng.integers(4, 45)), int(rng.integers(1, 7))
    labels = np.repeat(np.arange(size), rng.integers(1, 9, size))[:size]
    labels = rng.permutation(labels * 7 - 20)
    levels = 2 if seed % 3 == 0 else 128
    embeddings = (np.round(levels * rng.standard_normal((size, dimension))) / levels).astype(np.float32)
    if seed % 3 == 1:
        embeddings[: size // 3] = embeddings[rng.permutation(size)[: size // 3]]
    ids = rng.permutation(1000)[:size]
    if rng.random() < 0.5:
        return {"queries": embeddings, "query_labels": labels}
    split = int(rng.integers(1, size - 1))
    problem = {
        "queries": embeddings[:split],
        "query_labels": labels[:split],
        "gallery": embeddings[split:],
        "gallery_labels": labels[split:],
    }
    if rng.random() < 0.5:  # queries and gallery share images
        shared = max(0, split - int(rng.integers(0, split + 1)))
        problem |= {
            "gallery": embeddings[shared:],
            "gallery_labels": labels[shared:],
            "query_ids": ids[:split],
            "gallery_ids": ids[shared:],
        }
    return problem


@pytest.mark.parametrize("group", range(10))
def test_metrics_equal_brute_force_on_random_problems(group):
    solved = 0
    for seed in range(20 * group, 20 * group + 20):
        problem = random_problem(seed)
        orders = oracle.rankings(
            problem["queries"], problem.get("gallery"), problem.get("query_ids"), problem.get("gallery_ids")
        )
        labels = problem.get("gallery_labels", problem["query_labels"])
        expected = [
            oracle.metrics(order, label, labels, RECALL, PRECISION, MAP)
            for order, label in zip(orders, problem["query_labels"])
        ]
        options = {"recall_at": RECALL, "precision_at": PRECISION, "map_at": MAP}
        if all(np.isnan(row["map_at_r"]) for row in expected):
            with pytest.raises(ValueError, match="none of the"):
                evaluate_retrieval(**problem, **options)
            continue
        # Blocks of one query for some, one block for others.
        result = evaluate_retrieval(**problem, **options, memory_bytes=(20_000, 2**28)[seed % 2])
        for name, values in columns(result).items():
            np.testing.assert_allclose(
                values, [row[name] for row in expected], rtol=1e-12, err_msg=f"seed {seed}: {name}"
            )
        solved += 1
    assert solved >= 10


@pytest.mark.parametrize("group", range(4))
def test_a_subset_of_the_queries_has_the_same_metrics_as_among_all(group):
    for seed in range(10 * group, 10 * group + 10):
        problem = {**random_problem(seed), "recall_at": RECALL, "precision_at": PRECISION, "map_at": MAP}
        try:
            expected = evaluate_retrieval(**problem)
        except UnscorableError:
            continue
        size = len(expected.num_positives)
        # The first subset is empty.
        subsets = [
            evaluate_retrieval(**problem, subset=slice(*ends))
            for ends in ((0, 0), (0, size // 3), (size // 3, size))
        ]
        joined = subsets[1].with_columns(np.concatenate([result.columns() for result in subsets]))
        np.testing.assert_array_equal(joined.num_positives, expected.num_positives)
        found = columns(joined)
        assert list(found) == list(columns(expected))
        for name, values in columns(expected).items():
            np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=f"{seed}: {name}")


@pytest.mark.parametrize("shape", [(700, 3), (900, 16)])
@pytest.mark.parametrize("memory_bytes", [600_000, 2**28])
def test_recall_beyond_the_largest_r_equals_brute_force(shape, memory_bytes):
    rng = np.random.default_rng(1)
    embeddings = rng.integers(-2, 3, shape).astype(np.float32)  # many ties
    labels = rng.integers(0, 250, len(embeddings))
    squared = ((embeddings[:, np.newaxis].astype(np.float64) - embeddings) ** 2).sum(axis=2)
    np.fill_diagonal(squared, np.inf)
    relevant = labels[np.argsort(squared, axis=1, kind="stable")[:, :-1]] == labels[:, np.newaxis]
    ks = (1, 9, 50, 333, 699)
    result = evaluate_retrieval(embeddings, labels, recall_at=ks, memory_bytes=memory_bytes)
    assert result.num_positives.max() < 50
    for k in ks:
        counted = result.num_positives > 0
        np.testing.assert_array_equal(result.recall_at_k[k][counted], relevant[counted, :k].any(axis=1))


def test_metrics_equal_those_computed_by_hand():
    # On a line; the query 0 meets, in order: positive, negative, positive, negative.
    embeddings = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    labels = np.array([7, 7, 5, 7, 6])
    result = evaluate_retrieval(embeddings, labels, recall_at=(1, 2), precision_at=(3,), map_at=(1, 3))
    assert result.num_positives.tolist() == [2, 2, 0, 2, 0]
    assert result.r_precision[0] == 0.5
    assert result.map_at_r[0] == 0.5
    assert result.precision_at_k[3][0] == pytest.approx(2 / 3)
    assert result.map_at_k[1][0] == 1.0
    assert result.map_at_k[3][0] == pytest.approx((1 + 2 / 3) / 2)


def test_the_query_is_left_out_by_its_identity_and_its_copies_are_not():
    embeddings = np.zeros((3, 2))
    # All are equal, so the index decides: query 2 meets 0 (another class), then 1 (its class).
    result = evaluate_retrieval(embeddings, np.array([0, 1, 1]), recall_at=(1, 2))
    assert result.precision_at_1[1:].tolist() == [0.0, 0.0]
    assert result.recall_at_k[2][1:].tolist() == [1.0, 1.0]
    assert np.isnan(result.precision_at_1[0])


def test_self_retrieval_equals_query_gallery_with_ids_in_any_order():
    rng = np.random.default_rng(3)
    embeddings, labels = rng.standard_normal((40, 3)), rng.integers(0, 8, 40)
    ids, order = rng.permutation(1000)[:40], rng.permutation(40)
    alone = evaluate_retrieval(embeddings, labels)
    both = evaluate_retrieval(embeddings, labels, ids, embeddings[order], labels[order], ids[order])
    for name, values in columns(alone).items():
        np.testing.assert_array_equal(columns(both)[name], values)


def test_agrees_with_scikit_learn():
    rng = np.random.default_rng(5)
    gallery, labels = rng.standard_normal((80, 4)), rng.integers(0, 6, 80)
    queries, query_labels = rng.standard_normal((30, 4)), rng.integers(0, 6, 30)
    result = evaluate_retrieval(
        queries, query_labels, gallery=gallery, gallery_labels=labels, map_at=(len(gallery),)
    )
    classifier = KNeighborsClassifier(1).fit(gallery, labels)
    assert result.means()["precision_at_1"] == pytest.approx(classifier.score(queries, query_labels))
    for q, query in enumerate(queries):
        scores = -np.linalg.norm(gallery - query, axis=1)
        expected = average_precision_score(labels == query_labels[q], scores)
        assert result.map_at_k[len(gallery)][q] == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(accuracy_calculator.NUM_PROBLEMS))
def test_agrees_with_pytorch_metric_learning(seed):
    expected = json.loads(accuracy_calculator.FILE.read_text())[seed]
    means = evaluate_retrieval(**accuracy_calculator.problem(seed)).means()
    assert {name: means[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_the_problems_of_pytorch_metric_learning_are_not_trivial():
    values = json.loads(accuracy_calculator.FILE.read_text())
    assert len(values) == accuracy_calculator.NUM_PROBLEMS
    sizes = [
        np.unique(accuracy_calculator.problem(seed)["query_labels"], return_counts=True)[1]
        for seed in range(0, len(values), 2)
    ]
    assert sum((of_class == 1).any() for of_class in sizes) >= 4
    assert len({row["map_at_r"] for row in values}) > 20


def test_means_skip_queries_without_positives_and_are_json():
    embeddings = np.array([[0.0], [1.0], [10.0]])
    result = evaluate_retrieval(embeddings, np.array([3, 3, 4]), map_at=(2,))
    means = json.loads(json.dumps(result.means()))
    assert means["precision_at_1"] == means["recall_at_k"]["1"] == 1.0
    assert means["map_at_k"] == {"2": 1.0}
    assert (means["num_queries"], means["num_queries_without_positives"]) == (3, 1)
    assert result.scalars()["recall_at_8"] == 1.0
    assert "num_queries" not in result.scalars()


def test_labels_of_a_column_and_lists_out_of_order_are_accepted():
    embeddings, labels = np.array([[0.0], [1.0], [3.0]]), np.array([[1], [1], [1]])
    result = evaluate_retrieval(embeddings, labels, recall_at=[8, 1, 8])
    assert list(result.recall_at_k) == [1, 8]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"query_labels": np.zeros(3)}, "query_labels must have shape"),
        ({"query_labels": np.arange(4)}, "none of the 4 queries"),
        ({"recall_at": (0,)}, "recall_at is 0; expected a whole number of at least 1"),
        ({"map_at": (1, 2.5)}, "map_at is 2.5; expected a whole number of at least 1"),
        ({"query_labels": np.array([0.2, 0.7, 0.2, 0.7])}, "query_labels are float64; expected integers"),
        ({"query_labels": np.array(["a", "b", "a", "b"])}, "query_labels are <U1; expected integers"),
        ({"queries": np.array([[0.0], [1.0], [1e39], [2.0]])}, "1 of 4 rows are not finite or too large"),
        ({"queries": np.array([[0.0], [1.0], [np.nan], [2.0]])}, "1 of 4 rows are not finite"),
        ({"queries": np.zeros(4)}, "must be a non-empty matrix"),
        ({"queries": np.zeros((0, 3))}, "must be a non-empty matrix"),
        ({"gallery": np.zeros((2, 1))}, "needs gallery_labels"),
        ({"gallery": np.zeros((2, 3)), "gallery_labels": np.zeros(2)}, "1 dimensions, the gallery 3"),
        ({"gallery_labels": np.zeros(4)}, "without a gallery"),
        ({"gallery_ids": np.zeros(4)}, "without a gallery"),
        ({"gallery": np.zeros((2, 1)), "gallery_labels": np.zeros(2), "query_ids": [1]}, "given together"),
        (
            {
                "gallery": np.zeros((2, 1)),
                "gallery_labels": np.zeros(2),
                "query_ids": [1],
                "gallery_ids": [1],
            },
            "expected 4 query_ids and 2",
        ),
        (
            {
                "gallery": np.zeros((2, 1)),
                "gallery_labels": np.zeros(2),
                "query_ids": [1, 2, 3, 4],
                "gallery_ids": [5, 5],
            },
            "id 5 occurs more than once",
        ),
        ({"memory_bytes": 100}, "memory_bytes is 100"),
    ],
)
def test_errors_name_the_bad_input(change, message):
    arguments = {"queries": np.arange(4.0)[:, np.newaxis], "query_labels": np.zeros(4, int)} | change
    with pytest.raises(ValueError, match=message):
        evaluate_retrieval(**arguments)
