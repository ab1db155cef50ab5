"""The state machine of alternating projections, against loops in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool
from ccp_dml.projections.projections import AlternatingProjections

CLASSES, SIZE, DRAWS = 3, 2, 11


class Oracle:
    """The algorithm in NumPy and plain loops, written from docs/algorithm.md."""

    def __init__(self, pool, per_class, weight, proxies, options):
        self.pool, self.k, self.options = pool, per_class, options
        self.weight, self.proxies = weight, proxies
        self.by_score = options.ccp_reset_rule == "patience"
        self.t = self.n = self.stale = self.draws = 0
        self.best = np.inf
        self.solution = np.zeros_like(weight)
        self.theta, self.p = np.zeros_like(weight), np.zeros_like(proxies)
        self.images = np.full([per_class, CLASSES], -1)
        if not options.ccp_random_init:
            self.choose()

    @property
    def coefficient(self):
        return 0.0 if self.t == 0 else self.options.ccp_lambda * self.options.ccp_lambda_decay**self.t

    def choose(self):
        b = self.options.pool_size
        count = self.k if b <= 1 else (b * self.k if b < self.k else b)
        rows = [(self.draws + j) % DRAWS for j in range(count)]
        self.draws += count
        chosen = np.zeros([self.k, CLASSES, SIZE])
        for c in range(CLASSES):
            candidates = [self.pool[row, c].astype(np.float64) for row in rows]
            covered = [self.p[k * CLASSES + c] for k in range(self.k)]
            for k in range(self.k):
                pick = k
                if b > 1:
                    far = [min(((x - y) ** 2).sum() for y in covered) for x in candidates]
                    pick = int(np.argmax(far))
                    covered.append(candidates[pick])
                chosen[k, c] = candidates[pick]
                self.images[k, c] = rows[pick] * CLASSES + c
        self.proxies = chosen.reshape(-1, SIZE)

    def update(self, score):
        self.n += 1
        if self.n < self.options.ccp_min_iterations:
            return False
        if self.by_score:
            q = score if self.options.ccp_stop_at_min else -score
            if q < self.best - 1e-5:
                self.best, self.stale = q, 0
                self.theta, self.p = self.weight.copy(), self.proxies.copy()
            else:
                self.stale += 1
        due = not self.by_score or self.stale >= self.options.ccp_patience
        limit = self.options.ccp_max_iterations
        if not (due or (limit is not None and self.n >= limit)):
            return False
        if not self.by_score:
            self.theta, self.p = self.weight.copy(), self.proxies.copy()
        self.t += 1
        self.solution = self.theta
        self.choose()
        self.n = self.stale = 0
        self.best = np.inf
        return True


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 99),
    per_class=st.integers(1, 3),
    pool_size=st.sampled_from([0, 1, 2, 3, 5]),
    min_iterations=st.integers(1, 3),
    patience=st.sampled_from([None, 1, 2, 3]),
    limit=st.sampled_from([None, 2, 5]),
    decay=st.sampled_from([1.0, 0.5]),
    random_init=st.booleans(),
    stop_at_min=st.booleans(),
)
def test_every_transition_equals_the_oracle(
    seed, per_class, pool_size, min_iterations, patience, limit, decay, random_init, stop_at_min
):
    generator = np.random.default_rng(seed)
    pool = generator.normal(size=[DRAWS, CLASSES, SIZE]).astype(np.float32)
    start = generator.normal(size=[per_class * CLASSES, SIZE]).astype(np.float32)
    options = ProjectionOptions(
        ccp_lambda=0.3,
        ccp_lambda_decay=decay,
        ccp_reset_rule="fixed" if patience is None else "patience",
        ccp_patience=patience or 1,
        ccp_min_iterations=min_iterations,
        ccp_max_iterations=limit,
        pool_size=pool_size,
        ccp_random_init=random_init,
        ccp_stop_at_min=stop_at_min,
    )
    weight, proxies = tf.Variable([0.0, 0.0]), Proxies(CLASSES, per_class, SIZE)
    proxies.embeddings.assign(start)
    machine = AlternatingProjections([weight], proxies, _pool_of(pool), options)
    machine.begin()
    oracle = Oracle(pool, per_class, np.zeros(2), start.astype(np.float64), options)
    for score in generator.integers(0, 6, size=14) / 10:
        weight.assign(generator.normal(size=2))
        proxies.embeddings.assign_add(generator.normal(size=start.shape).astype(np.float32))
        oracle.weight, oracle.proxies = weight.numpy(), proxies.embeddings.numpy()
        assert machine.update(float(score)) == oracle.update(score)
        assert int(machine.instance) == oracle.t
        assert (int(machine.validations), int(machine.stale)) == (oracle.n, oracle.stale)
        assert int(machine.chooser.draws) == oracle.draws
        assert float(machine.proximal_coefficient) == pytest.approx(oracle.coefficient)
        np.testing.assert_allclose(machine.anchors[0], oracle.solution, rtol=1e-6)
        np.testing.assert_allclose(proxies.embeddings, oracle.proxies, rtol=1e-6)
        np.testing.assert_array_equal(machine.chooser.images, oracle.images)


def _pool_of(embeddings, moved_by=lambda: 0.0) -> ProxyPool:
    """Makes a pool that draws the rows of embeddings [n, C, D] in turn; image i is row i of [n * C, D]."""
    rows, classes, size = embeddings.shape

    def draws(first, count):
        return (np.arange(first, first + count) % rows)[:, None] * classes + np.arange(classes)

    def embed(images):
        return embeddings.reshape(-1, size)[images] + np.float32(moved_by())

    return ProxyPool(draws, embed)


def _machine(moved_by=lambda: 0.0, **options) -> tuple[AlternatingProjections, tf.Variable, Proxies]:
    """Makes projections with a patience of 1, of one weight and two proxies for each of three classes."""
    weight, proxies = tf.Variable([3.0, 4.0]), Proxies(CLASSES, 2, SIZE)
    embeddings = np.random.default_rng(0).normal(size=[DRAWS, CLASSES, SIZE]).astype(np.float32)
    chosen = ProjectionOptions(**{"ccp_reset_rule": "patience", "ccp_patience": 1, **options})
    pool = _pool_of(embeddings, moved_by)
    return AlternatingProjections([weight], proxies, pool, chosen), weight, proxies


def test_without_representatives_only_the_proximal_term_changes():
    machine, weight, proxies = _machine(ccp_use_representative_proxy=False, ccp_lambda=0.5)
    before = proxies.embeddings.numpy()
    machine.begin()
    machine.update(0.5)
    weight.assign([9.0, 9.0])
    assert machine.update(0.4)
    np.testing.assert_array_equal(proxies.embeddings, before)
    np.testing.assert_array_equal(machine.anchors[0], [3.0, 4.0])
    assert float(machine.proximal_coefficient) == 0.5
    assert machine.chooser is None


def test_a_new_instance_does_not_change_the_weights():
    machine, weight, _ = _machine()
    machine.begin()
    machine.update(0.5)
    weight.assign([7.0, 7.0])
    machine.update(0.1)
    np.testing.assert_array_equal(weight, [7.0, 7.0])


def test_the_noise_on_the_solution_is_relative_to_its_size():
    shape = [4000]
    solutions = []
    for _ in range(2):
        weight = tf.Variable(tf.fill(shape, 2.0))
        options = ProjectionOptions(ccp_perturb_noise=0.1, ccp_reset_rule="fixed")
        machine = AlternatingProjections([weight], None, None, options)
        machine.begin()
        machine.update(0.5)
        solutions.append(machine.anchors[0].numpy())
        np.testing.assert_array_equal(weight, np.full(shape, 2.0))
        np.testing.assert_array_equal(machine.best_weights[0], np.full(shape, 2.0))
    assert solutions[0].mean() == pytest.approx(2.0, abs=0.02)
    assert solutions[0].std() == pytest.approx(0.2, rel=0.1)
    np.testing.assert_array_equal(*solutions)


def test_if_all_scores_are_nan_the_solution_is_the_last_point():
    machine, weight, _ = _machine(ccp_patience=2)
    machine.begin()
    assert not machine.update(float("nan"))
    weight.assign([1.0, 2.0])
    assert machine.update(float("nan"))
    np.testing.assert_array_equal(machine.anchors[0], [1.0, 2.0])


def test_a_second_beginning_continues_the_draws():
    machine, _, _ = _machine(pool_size=4)
    machine.begin()
    machine.update(0.5)
    machine.begin()
    assert (int(machine.chooser.draws), int(machine.validations)) == (8, 0)
    assert float(machine.best_score) == 1e16


def test_without_chosen_proxies_staleness_is_not_measured():
    weight = tf.Variable([1.0, 2.0])
    options = ProjectionOptions(ccp_reset_rule="patience", ccp_use_representative_proxy=False)
    machine = AlternatingProjections([weight], Proxies(2, 1, 2), None, options)
    machine.begin()
    assert [machine.update(score) for score in (0.5, 0.4, 0.3, 0.2)] == [False, False, False, True]
    assert machine.last_staleness is None
    np.testing.assert_array_equal(machine.anchors[0], weight)


def test_an_improvement_of_less_than_1e_5_does_not_count():
    machine = AlternatingProjections(
        [], None, None, ProjectionOptions(ccp_reset_rule="patience", ccp_patience=9)
    )
    machine.begin()
    for score, stale in ((0.5, 0), (0.500005, 1), (0.500009, 2), (0.500011, 0)):
        machine.update(score)
        assert int(machine.stale) == stale


def test_a_checkpoint_holds_the_whole_state(tmp_path):
    machine, weight, proxies = _machine()
    machine.begin()
    for score in (0.5, 0.6, 0.4):
        weight.assign_add([1.0, 1.0])
        machine.update(score)
    path = tf.train.Checkpoint(machine=machine, proxies=proxies).save(str(tmp_path / "c"))
    other, _, other_proxies = _machine()
    restored = tf.train.Checkpoint(machine=other, proxies=other_proxies).restore(path)
    restored.assert_existing_objects_matched().assert_consumed()
    for a, b in zip(machine.variables, other.variables):
        np.testing.assert_array_equal(a, b)
    assert int(other.instance) == 1


def test_proxies_need_a_pool():
    with pytest.raises(ValueError, match="pool"):
        AlternatingProjections([], Proxies(2, 1, 2), None)


@pytest.mark.parametrize(
    "options",
    [
        {"ccp_lambda": -1.0},
        {"ccp_lambda_decay": 0.0},
        {"ccp_min_iterations": 0},
        {"ccp_perturb_noise": -0.1},
        {"ccp_patience": 0},
        {"ccp_staleness_threshold": 0.0},
        {"ccp_max_iterations": 0},
    ],
)
def test_options_are_checked(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=f"{name}={value:g}: expected"):
        ProjectionOptions(**options)


def test_an_unknown_reset_rule_is_refused():
    with pytest.raises(ValueError, match="ccp_reset_rule=often: expected one of patience, fixed, staleness"):
        ProjectionOptions(ccp_reset_rule="often")


def test_the_staleness_rule_ends_an_instance_when_images_have_moved():
    moved = {"by": 0.0}
    machine, _, proxies = _machine(lambda: moved["by"], ccp_reset_rule="staleness")
    machine.begin()
    proxies.embeddings.assign_add(
        tf.ones_like(proxies.embeddings)
    )  # Staleness is that of the proxies as chosen.
    assert not machine.update(0.5)
    assert machine.last_staleness == pytest.approx(0.0, abs=1e-6)
    assert not machine.update(0.1)
    moved["by"] = 3.0
    assert machine.update(0.9)
    assert machine.last_staleness > 0.5


def test_proxies_that_stand_for_no_image_are_infinitely_stale():
    machine, _, _ = _machine(ccp_random_init=True, ccp_reset_rule="staleness", ccp_staleness_threshold=100.0)
    machine.begin()
    assert machine.update(0.5)
    assert machine.last_staleness == float("inf")


def test_the_staleness_rule_needs_proxies():
    with pytest.raises(ValueError, match="no proxies are chosen; expected another rule"):
        _machine(ccp_use_representative_proxy=False, ccp_reset_rule="staleness")
