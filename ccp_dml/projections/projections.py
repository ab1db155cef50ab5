"""Alternating projections: the problem instances of deep metric learning with chance constraints.

Gürbüz, Can and Alatan, Deep Metric Learning with Chance Constraints, 2022 (arXiv 2209.09060), section 4.
`docs/algorithm.md` states the algorithm as it is implemented here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml import faults
from ccp_dml.distributed.replicas import WeightSnapshot
from ccp_dml.distributed.workers import ALONE, Workers
from ccp_dml.geometry import greedy_k_center, normalize
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import PoolMemory
from ccp_dml.projections.reset_rules import InstanceView, PatienceRule, ResetRule

DrawPool = Callable[[int, int], tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]]
EmbedImages = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float32]]

_UNKNOWN_IMAGE = -1
_MAX_MEASURED = 256


class AlternatingProjections(tf.Module):
    """The state machine that ends a problem instance and begins the next.

    All of its state is in variables. It replaces proxies; the model's weights and the optimizer are never
    touched.

    Attributes:
        options: the options.
        proximal_coefficient: float32 variable, λ of this instance.
        anchors: variables, θ̂: the solution of the last instance, in the order of `weights`.
        instance: int64 variable, t, the number of instances that have ended.
        validations: int64 variable, validations of this instance.
        stale: int64 variable, validations since the best score of this instance.
        best_score: float64 variable, the best score of this instance, negated where higher is better; 1e16
            before the first.
        best_weights: variables, θ_best.
        best_proxies: float32 variable [C * K, D], P_best; None without proxies.
        draws: int64 variable, draws of the pool so far.
        proxy_images: int64 variable [K, C], the image each proxy was chosen from, -1 if none.
        memory: of training embeddings; None if new proxies are chosen from new embeddings alone.
    """

    def __init__(
        self,
        weights: Sequence[tf.Variable],
        proxies: Proxies | None,
        draw_pool: DrawPool | None,
        options: ProjectionOptions | None = None,
        *,
        reset_rule: ResetRule | None = None,
        embed_images: EmbedImages | None = None,
        normalization: str = "none",
        track_staleness: bool = False,
        memory: PoolMemory | None = None,
        workers: Workers = ALONE,
    ) -> None:
        """Creates the state; nothing is drawn before `begin`.

        Args:
            weights: θ, the trainable weights of the embedding model.
            proxies: P; None, or `use_representative_proxy=False`, leaves the proximal term alone.
            draw_pool: `draw_pool(first_draw, count)` gives raw embeddings [count, C, D] by the present
                weights and the indices [count, C] of their images.
            options: the options; None for the defaults.
            reset_rule: when an instance ends; None for a patience of 3 validations.
            embed_images: embeds images by index as they are now, int64 [n] -> [n, D]; needed to measure
                staleness.
            normalization: what the loss does to embeddings; staleness is measured after it.
            track_staleness: measure staleness at every validation, whether or not the rule needs it; without
                proxies there is none.
            memory: what `draw_pool` remembers of training steps; part of the state.
            workers: who choose proxies together; with several, `draw_pool` gives the pool of this one's share
                of the classes.

        Raises:
            ValueError: if proxies are to be chosen and `draw_pool` is missing.
        """
        super().__init__(name="alternating_projections")
        self.options = options or ProjectionOptions()
        self._rule: ResetRule = reset_rule or PatienceRule()
        self._weights = list(weights)
        self._proxies = proxies if self.options.use_representative_proxy else None
        if self._proxies is not None and draw_pool is None:
            raise ValueError("draw_pool is missing: proxies cannot be chosen without a pool of embeddings.")
        self._draw_pool, self._embed_images, self._normalization = draw_pool, embed_images, normalization
        self._track_staleness = track_staleness
        self.memory, self._workers = memory, workers
        self.last_staleness: float | None = None
        self.proximal_coefficient = _state(0.0, tf.float32, "proximal_coefficient")
        self.instance = _state(0, tf.int64, "instance")
        self.validations = _state(0, tf.int64, "validations")
        self.stale = _state(0, tf.int64, "stale")
        self.best_score = _state(1e16, tf.float64, "best_score")
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
        """θ̂, what the proximal term pulls the weights to; zero, and without effect, in the first instance."""
        return self._solution.values

    @property
    def best_weights(self) -> list[tf.Variable]:
        """θ_best of this instance (of the last one until this one has a score)."""
        return self._best_weights.values

    @property
    def best_proxies(self) -> tf.Variable | None:
        """P_best of this instance (of the last one until this one has a score); zero at the very start."""
        return None if self._best_proxies is None else self._best_proxies.values[0]

    def begin(self) -> None:
        """Begins training: chooses the first proxies, unless `random_init`, with a clean record.

        The set that is already covered is the origin: nothing has been solved yet.
        """
        self._forget()
        self._set_coefficient()
        if self._best_proxies is not None and not self.options.random_init:
            self._choose_proxies([tf.zeros_like(part) for part in self._parts_of_best()])

    def update(self, score: float) -> bool:
        """Takes note of a validation.

        Args:
            score: the monitored score; NaN is never better.

        Returns:
            Whether a new problem instance begins.
        """
        self.validations.assign_add(1)
        self.last_staleness = None
        if self._track_staleness and self._proxies is not None:
            self.measure_staleness()
        if int(self.validations) < self.options.min_iterations:
            return False
        if self._rule.uses_score:
            self._note(score if self.options.stop_at_min else -score)
        view = InstanceView(int(self.validations), int(self.stale), self.measure_staleness)
        if not self._rule.due(view):
            return False
        self._next_instance()
        return True

    def measure_staleness(self) -> float:
        """How far the images of the proxies have moved since these were chosen, see `staleness`.

        At most 256 proxies, evenly spaced, are measured.

        Returns:
            The staleness; infinite where the proxies were never chosen from images.

        Raises:
            ValueError: if there are no proxies or no `embed_images`.
        """
        if self._proxies is None or self._embed_images is None:
            raise ValueError("Staleness can only be measured with proxies and with embed_images.")
        if self.last_staleness is not None:
            return self.last_staleness
        images = self.proxy_images.numpy().reshape(-1)
        if (images == _UNKNOWN_IMAGE).any():
            self.last_staleness = float("inf")
            return self.last_staleness
        rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), _MAX_MEASURED)).astype(np.int64))
        chosen = self._proxies.rows_of(self._chosen.values[0], rows)
        present = tf.constant(self._embed_images(images[rows]))
        self.last_staleness = self._workers.from_chief(staleness(chosen, present, self._normalization))
        return self.last_staleness

    def _note(self, quantity: float) -> None:
        if quantity < float(self.best_score) - self.options.min_improvement:
            self.stale.assign(0)
            self.best_score.assign(quantity)
            self._keep_best()
        else:
            self.stale.assign_add(1)

    def _keep_best(self) -> None:
        self._best_weights.take()
        if self._best_proxies is not None:
            self._best_proxies.take()

    def _next_instance(self) -> None:
        if float(self.best_score) >= 1e16:  # no score counted: the solution is where we are
            self._keep_best()
        self.instance.assign_add(1)
        self._solution.copy_from(self._perturbed(self._best_weights.values))
        self._set_coefficient()
        if self._best_proxies is not None:
            self._choose_proxies(self._parts_of_best())
        self._forget()

    def _forget(self) -> None:
        self.validations.assign(0)
        self.stale.assign(0)
        self.best_score.assign(1e16)

    def _set_coefficient(self) -> None:
        instance = int(self.instance)
        value = self.options.coefficient * self.options.decay**instance if instance else 0.0
        self.proximal_coefficient.assign(value)

    def _perturbed(self, values: Sequence[tf.Variable]) -> list[tf.Tensor]:
        if not self.options.perturb_noise:
            return [value.read_value() for value in values]
        noisy = []
        for i, value in enumerate(values):
            seed = [self.options.seed + i, int(self.instance)]
            deviation = self.options.perturb_noise * tf.sqrt(tf.reduce_mean(tf.square(value)))
            noisy.append(value + deviation * tf.random.stateless_normal(value.shape, seed, dtype=value.dtype))
        return noisy

    def _parts_of_best(self) -> list[tf.Tensor]:
        assert self._proxies is not None
        assert self._best_proxies is not None
        return self._proxies.parts_of(self._best_proxies.values[0])

    def _choose_proxies(self, covered: Sequence[tf.Tensor]) -> None:
        """Replaces the proxies. `covered`: of each part of the table here, float32 [K, n, D]."""
        assert self._proxies is not None
        assert self._draw_pool is not None
        per_class = self._proxies.proxies_per_class
        count = self.options.draws(per_class)
        pool, images = self._draw_pool(int(self.draws), count)
        self.draws.assign_add(count)
        faults.passage("reset")
        share = self._workers.share(self._proxies.num_classes)
        centers, chosen = [], []
        # Each class needs only its own pool: neither that nor the table is ever in one place.
        for classes, part in zip(self._proxies.classes_here, covered):
            first, last = max(classes.start, share.start), min(classes.stop, share.stop)
            of_pool = slice(first - share.start, max(first, last) - share.start)
            own, own_images = pool[:, of_pool], np.asarray(images)[:, of_pool]
            if self.options.pool_size > 1:
                picks, own = greedy_k_center(
                    tf.constant(own),
                    part[:, first - classes.start : max(first, last) - classes.start],
                    per_class,
                    normalized=self.options.normalized_embeddings,
                )
                own_images = np.take_along_axis(own_images, np.asarray(picks), axis=0)
            centers.append(own)
            chosen.append(own_images)
        if self._proxies.shards.alone:
            centers = [self._workers.gather_columns(np.asarray(own)) for own in centers]
        self._proxies.reset_parts(centers)
        self.proxy_images.assign(self._workers.gather_columns(np.concatenate(chosen, axis=1)))
        self._chosen.take()


def _state(value: object, dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, dtype=dtype, name=name)


def staleness(proxies: tf.Tensor, present: tf.Tensor, normalization: str = "none") -> float:
    """Mean distance from proxies to their images' present embeddings, relative to the proxies' spread.

    `mean_i |p_i - x_i| / mean_i |p_i - mean_j p_j|`, so 0 means that every image is where its proxy is and 1
    that images are as far from their proxies as the proxies are from their centre. It has no unit and does
    not depend on the scale of the embedding.

    Args:
        proxies: [N, D] the proxies.
        present: [N, D] row i = the present embedding of the image that proxy i was chosen from.
        normalization: what the loss does to embeddings before it measures distances.

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
