"""Alternating projections: the problem instances of deep metric learning with chance constraints.

Gürbüz, Can and Alatan, Deep Metric Learning with Chance Constraints, 2022 (arXiv 2209.09060), section 4.
`docs/algorithm.md` states the algorithm as it is implemented here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from ccp_dml.distributed.replicas import WeightSnapshot
from ccp_dml.distributed.workers import SINGLE_WORKER
from ccp_dml.geometry import greedy_k_center, normalize
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool
from ccp_dml.training.controllers import Controller, monitored_score
from ccp_dml.training.options import DEFAULT_MONITOR

# A score counts as better if it is so by more than this.
_MIN_IMPROVEMENT = 1e-5
_NO_SCORE = 1e16
_UNKNOWN_IMAGE = -1
_MOST_MEASURED = 256


class AlternatingProjections(Controller):
    """The state machine that ends a problem instance and begins the next.

    All of its state is in variables. It replaces proxies; the model's weights and the optimizer are never
    touched.

    Attributes:
        options: the options.
        proximal_coefficient: float32 variable, λ of this instance.
        anchors: variables, θ̂: the solution of the last instance, in the order of `weights`; zero, and without
            effect, in the first instance.
        instance: int64 variable, t, the number of instances that have ended.
        validations: int64 variable, validations of this instance.
        stale: int64 variable, validations since the best score of this instance.
        best_score: float64 variable, the best score of this instance, negated where higher is better; 1e16
            before the first.
        draws: int64 variable, draws of the pool so far.
        proxy_images: int64 variable [K, C], the image each proxy was chosen from, -1 if none.
        memory: of training embeddings; None if new proxies are chosen from new embeddings alone.
        last_staleness: staleness at the last validation; None if it was not measured.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        proxies: Proxies | None,
        pool: ProxyPool | None,
        options: ProjectionOptions | None = None,
        *,
        normalization: str = "none",
        seed: int = 0,
    ) -> None:
        """Creates the state; nothing is drawn before `begin`.

        Args:
            weights: θ, the trainable weights of the embedding model.
            proxies: P; None, or `ccp_use_representative_proxy=False`, leaves the proximal term alone.
            pool: embeddings of training images to choose proxies from.
            options: the options; None for the defaults.
            normalization: of embeddings in the loss; staleness is measured after it.
            seed: of `ccp_perturb_noise`.

        Raises:
            ValueError: if proxies are to be chosen and there is no pool.
        """
        super().__init__(name="alternating_projections")
        self.options = options or ProjectionOptions()
        self._weights = list(weights)
        self._proxies = proxies if self.options.ccp_use_representative_proxy else None
        if self._proxies is not None and pool is None:
            raise ValueError("pool=None: expected a pool of embeddings from which proxies are chosen")
        self._pool, self._normalization, self._seed = pool, normalization, seed
        self._workers = SINGLE_WORKER if pool is None else pool.workers
        self.memory = None if pool is None else pool.memory
        self.last_staleness: float | None = None
        self.proximal_coefficient = _state(0.0, tf.float32, "proximal_coefficient")
        self.instance = _state(0, tf.int64, "instance")
        self.validations = _state(0, tf.int64, "validations")
        self.stale = _state(0, tf.int64, "stale")
        self.best_score = _state(_NO_SCORE, tf.float64, "best_score")
        self.draws = _state(0, tf.int64, "draws")
        # Read in every training step, so kept where the weights are.
        self._solution = WeightSnapshot(self._weights, on_host=False, name="solution")
        self._best_weights = WeightSnapshot(self._weights, name="best_weights")
        self._best_proxies: WeightSnapshot | None = None
        if self._proxies is not None:
            shape = (self._proxies.proxies_per_class, self._proxies.num_classes)
            self._best_proxies = WeightSnapshot([self._proxies.embeddings], name="best_proxies")
            self._chosen = WeightSnapshot([self._proxies.embeddings], name="chosen_proxies")
            self.proxy_images = _state(np.full(shape, _UNKNOWN_IMAGE), tf.int64, "proxy_images")

    @property
    def anchors(self) -> list[tf.Variable]:
        """θ̂, the point that the proximal term pulls the weights to."""
        return self._solution.values

    @property
    def best_weights(self) -> list[tf.Variable]:
        """θ_best of this instance (of the last one until this one has a score)."""
        return self._best_weights.values

    @property
    def best_proxies(self) -> tf.Variable | None:
        """P_best of this instance (of the last one until this one has a score); zero at the very start."""
        return None if self._best_proxies is None else self._best_proxies.values[0]

    @property
    def watches_every_step(self) -> bool:
        """Whether the score of every single step is looked at."""
        return self.options.ccp_step_at_batch

    @property
    def watches_batches(self) -> bool:
        """Whether the embeddings of training steps are remembered."""
        return self.memory is not None

    @property
    def logs(self) -> dict[str, Any]:
        """`problem_instance` and `proximal_coefficient`."""
        return {
            "problem_instance": int(self.instance),
            "proximal_coefficient": float(self.proximal_coefficient),
        }

    def begin(self) -> None:
        """Chooses the first proxies, unless `ccp_random_init`, and clears the record of the instance.

        The set that is already covered is the origin: nothing has been solved yet.
        """
        self._clear_record()
        self._set_coefficient()
        if self._proxies is not None and not self.options.ccp_random_init:
            zeros = [tf.zeros_like(shard) for shard in self._shards_of_best()]
            self._choose_proxies(zeros)

    def after_step(self, labels: tf.Tensor, embeddings: tf.Tensor) -> None:
        """Remembers the embeddings of a training step."""
        assert self.memory is not None
        self.memory.record(labels, embeddings)

    def after_steps(self, scores: Mapping[str, float]) -> None:
        """Takes the score of a step, with `ccp_step_at_batch`."""
        if self.options.ccp_step_at_batch:
            self.update(monitored_score(scores, self._monitor))

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Takes the score of a validation; adds `proxy_staleness` where it was measured."""
        if self.options.ccp_step_at_batch:
            return
        self.update(monitored_score(logs, self._monitor))
        if self.last_staleness is not None:
            logs["proxy_staleness"] = self.last_staleness

    def update(self, score: float) -> bool:
        """Takes a score; ends the instance if it is due.

        Args:
            score: the monitored score; NaN is never better.

        Returns:
            Whether a new problem instance begins.
        """
        self.validations.assign_add(1)
        self.last_staleness = None
        # Measuring embeds images: too much for every step.
        if self._proxies is not None and not self.options.ccp_step_at_batch:
            self.measure_staleness()
        if int(self.validations) < self.options.ccp_min_iterations:
            return False
        if self.options.ccp_reset_rule != "fixed":  # Else the solution is the last point, whatever its score.
            self._record_score(score if self.options.ccp_stop_at_min else -score)
        if not self._is_due():
            return False
        self._begin_instance()
        return True

    def measure_staleness(self) -> float:
        """Measures how far the images of the proxies have moved since these were chosen, see `staleness`.

        At most 256 proxies, evenly spaced, are measured.

        Returns:
            The staleness; infinite where the proxies were never chosen from images.

        Raises:
            ValueError: if there are no proxies.
        """
        if self._proxies is None or self._pool is None:
            raise ValueError("There are no proxies whose staleness could be measured.")
        if self.last_staleness is not None:
            return self.last_staleness
        images = self.proxy_images.numpy().reshape(-1)
        if (images == _UNKNOWN_IMAGE).any():
            self.last_staleness = float("inf")
            return self.last_staleness
        rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), _MOST_MEASURED)).astype(np.int64))
        chosen = self._proxies.rows_of(self._chosen.values[0], rows)
        present = tf.constant(self._pool.embed_images(images[rows]))
        self.last_staleness = self._workers.from_chief(staleness(chosen, present, self._normalization))
        return self.last_staleness

    @property
    def _monitor(self) -> str:
        default = "loss" if self.options.ccp_step_at_batch else DEFAULT_MONITOR
        return self.options.ccp_monitor or default

    def _is_due(self) -> bool:
        """Whether the instance ends, once it has had its fewest validations."""
        options = self.options
        most = options.ccp_max_iterations
        if most is not None and int(self.validations) >= most:
            return True
        if options.ccp_reset_rule == "patience":
            return int(self.stale) >= options.ccp_patience
        if options.ccp_reset_rule == "staleness":
            return self.measure_staleness() > options.ccp_staleness_threshold
        return True

    def _record_score(self, quantity: float) -> None:
        if quantity < float(self.best_score) - _MIN_IMPROVEMENT:
            self.stale.assign(0)
            self.best_score.assign(quantity)
            self._keep_best()
        else:
            self.stale.assign_add(1)

    def _keep_best(self) -> None:
        self._best_weights.take()
        if self._best_proxies is not None:
            self._best_proxies.take()

    def _begin_instance(self) -> None:
        if float(self.best_score) >= _NO_SCORE:  # No score counted: the solution is the present point.
            self._keep_best()
        self.instance.assign_add(1)
        self._solution.copy_from(self._perturbed(self._best_weights.values))
        self._set_coefficient()
        if self._proxies is not None:
            self._choose_proxies(self._shards_of_best())
        self._clear_record()

    def _clear_record(self) -> None:
        self.validations.assign(0)
        self.stale.assign(0)
        self.best_score.assign(_NO_SCORE)

    def _set_coefficient(self) -> None:
        instance = int(self.instance)
        value = self.options.ccp_lambda * self.options.ccp_lambda_decay**instance if instance else 0.0
        self.proximal_coefficient.assign(value)

    def _perturbed(self, values: Sequence[tf.Variable]) -> list[tf.Tensor]:
        noise = self.options.ccp_perturb_noise
        if not noise:
            return [value.read_value() for value in values]
        noisy = []
        for i, value in enumerate(values):
            seed = [self._seed + i, int(self.instance)]
            deviation = noise * tf.sqrt(tf.reduce_mean(tf.square(value)))
            noisy.append(value + deviation * tf.random.stateless_normal(value.shape, seed, dtype=value.dtype))
        return noisy

    def _shards_of_best(self) -> list[tf.Tensor]:
        assert self._proxies is not None
        assert self._best_proxies is not None
        return self._proxies.shards_of(self._best_proxies.values[0])

    def _choose_proxies(self, covered: Sequence[tf.Tensor]) -> None:
        """Replaces the proxies. `covered`: of each shard of the table here, float32 [K, n, D]."""
        assert self._proxies is not None
        assert self._pool is not None
        per_class = self._proxies.proxies_per_class
        count = self.options.draws(per_class)
        embeddings, images = self._pool(int(self.draws), count)
        self.draws.assign_add(count)
        mine = self._workers.local_slice(self._proxies.num_classes)
        centers, chosen = [], []
        # Each class needs only its own candidates: neither these nor the table are ever in one place.
        for classes, shard in zip(self._proxies.classes_here, covered):
            first, last = max(classes.start, mine.start), min(classes.stop, mine.stop)
            last = max(first, last)
            candidates = slice(first - mine.start, last - mine.start)
            found, found_images = embeddings[:, candidates], np.asarray(images)[:, candidates]
            if self.options.pool_size > 1:
                picks, found = greedy_k_center(
                    tf.constant(found),
                    shard[:, first - classes.start : last - classes.start],
                    per_class,
                    normalized=self.options.ccp_normalized_embeddings,
                )
                found_images = np.take_along_axis(found_images, np.asarray(picks), axis=0)
            centers.append(found)
            chosen.append(found_images)
        if self._proxies.shards.is_single:
            centers = [self._workers.gather_columns(np.asarray(found)) for found in centers]
        self._proxies.reset_shards(centers)
        self.proxy_images.assign(self._workers.gather_columns(np.concatenate(chosen, axis=1)))
        self._chosen.take()


def staleness(proxies: tf.Tensor, present: tf.Tensor, normalization: str = "none") -> float:
    """Mean distance from proxies to their images' present embeddings, relative to the proxies' spread.

    `mean_i |p_i - x_i| / mean_i |p_i - mean_j p_j|`, so 0 means that every image is where its proxy is and 1
    that images are as far from their proxies as the proxies are from their centre. It has no unit and does
    not depend on the scale of the embedding.

    Args:
        proxies: [N, D] the proxies.
        present: [N, D] row i = the present embedding of the image that proxy i was chosen from.
        normalization: applied to both before distances are measured.

    Returns:
        The staleness, non-negative; infinite if the proxies coincide while their images do not.

    Raises:
        ValueError: if the shapes differ.
    """
    proxies, present = tf.cast(proxies, tf.float32), tf.cast(present, tf.float32)
    if proxies.shape != present.shape:
        raise ValueError(f"{present.shape} embeddings are compared with {proxies.shape} proxies.")
    proxies, present = normalize(proxies, normalization), normalize(present, normalization)
    moved = float(tf.reduce_mean(tf.norm(proxies - present, axis=-1)))
    spread = float(tf.reduce_mean(tf.norm(proxies - tf.reduce_mean(proxies, axis=0), axis=-1)))
    if spread > 0:
        return moved / spread
    return float("inf") if moved > 0 else 0.0


def _state(value: object, dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, dtype=dtype, name=name)
