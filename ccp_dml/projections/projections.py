"""Alternating projections: the problem instances of deep metric learning with chance constraints.

Gürbüz, Can and Alatan, Deep Metric Learning with Chance Constraints, 2022 (arXiv 2209.09060), section 4.
`docs/algorithm.md` states the algorithm as it is implemented here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from ccp_dml.data.sampling import OnePerClassSampler
from ccp_dml.distributed.snapshots import WeightSnapshot
from ccp_dml.evaluation.callback import embed_rows
from ccp_dml.losses.base import MetricLoss
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.choice import ProxyChooser
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import Draws, ProxyPool
from ccp_dml.training.controllers import Controller, monitored_score
from ccp_dml.training.gradients import ProximalTerm
from ccp_dml.training.options import DEFAULT_MONITOR

# Smallest improvement of a score that counts.
_MIN_IMPROVEMENT = 1e-5
_NO_SCORE = 1e16


class AlternatingProjections(Controller):
    """Ends problem instances, and begins the next ones with new proxies and a new anchor of the weights.

    All of its state is in variables. It replaces proxies; it never changes the weights of the model or the
    optimizer.

    Attributes:
        weights: θ.
        options: the options.
        chooser: chooses proxies; None without proxies, or if they are not to be replaced.
        proximal_coefficient: float32 variable, λ of this instance.
        instance: int64 variable, t, the number of instances that have ended.
        validations: int64 variable, number of validations of this instance.
        stale: int64 variable, number of validations since the best score of this instance.
        best_score: float64 variable, the best score of this instance, negated if higher is better; 1e16
            before the first.
        memory: embeddings of training steps, if the pool has a memory; None otherwise.
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
        """Creates the state; no proxy is chosen before `begin`.

        Args:
            weights: θ, the trainable weights of the embedding model.
            proxies: P; with None, or `ccp_use_representative_proxy=False`, only the proximal term remains.
            pool: embedded training images, from which proxies are chosen.
            options: the options; None for the defaults.
            normalization: normalisation of the loss, after which staleness is measured.
            seed: seed of the noise of `ccp_perturb_noise`.

        Raises:
            ValueError: if proxies are to be chosen without a pool, or staleness to be measured without
                proxies.
        """
        super().__init__(name="alternating_projections")
        self.options = options or ProjectionOptions()
        self.weights, self._seed = list(weights), seed
        self.chooser: ProxyChooser | None = None
        if proxies is not None and self.options.ccp_use_representative_proxy:
            if pool is None:
                raise ValueError("pool is None; expected a pool of embeddings, from which proxies are chosen")
            self.chooser = ProxyChooser(proxies, pool, self.options, normalization)
        elif self.options.ccp_reset_rule == "staleness":
            raise ValueError(
                "ccp_reset_rule is 'staleness', but no proxies are chosen; expected another rule"
            )
        default_monitor = "loss" if self.options.ccp_step_at_batch else DEFAULT_MONITOR
        self._monitor = self.options.ccp_monitor or default_monitor
        stop_at_min = self.options.ccp_stop_at_min
        self._stop_at_min = self._monitor == "loss" if stop_at_min is None else stop_at_min
        self.memory = None if pool is None or self.chooser is None else pool.memory
        self.last_staleness: float | None = None
        self.proximal_coefficient = _state(0.0, tf.float32, "proximal_coefficient")
        self.instance = _state(0, tf.int64, "instance")
        self.validations = _state(0, tf.int64, "validations")
        self.stale = _state(0, tf.int64, "stale")
        self.best_score = _state(_NO_SCORE, tf.float64, "best_score")
        # Read in every training step, hence kept where the weights are.
        self._solution = WeightSnapshot(self.weights, on_host=False, name="solution")
        self._best_weights = WeightSnapshot(self.weights, name="best_weights")

    @classmethod
    def of_model(
        cls,
        model: tf.keras.Model,
        loss: MetricLoss,
        samples: Any,
        labels: npt.ArrayLike,
        options: ProjectionOptions | None = None,
        *,
        batch_size: int = 128,
        seed: int = 0,
    ) -> AlternatingProjections:
        """Makes the projections of a model and a loss whose proxies are chosen from samples.

        Args:
            model: a model from samples [B, ...] to embeddings [B, D]; it is called once if it is not built.
            loss: the loss; its proxies are replaced.
            samples: inputs of the model without augmentation, [N, ...]: an array, or a sequence of arrays.
            labels: integers [N] in 0..C-1; every class has a sample.
            options: the options; None for the defaults.
            batch_size: samples that are embedded at once, at least 1.
            seed: seed of the draws of samples, and of noise.

        Raises:
            ValueError: if the loss has no proxies, the labels do not fit the samples or the loss, or the
                options ask for a memory of embeddings.

        Example:
            >>> samples, labels = np.eye(6, dtype=np.float32), np.array([0, 0, 1, 1, 2, 2])
            >>> loss = ccp_dml.losses.CCP(ccp_dml.losses.Contrastive(), num_classes=3, embedding_size=2)
            >>> model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
            >>> projections = AlternatingProjections.of_model(model, loss, samples, labels)
            >>> projections.begin()  # A `Trainer` calls it.
            >>> projections.logs["problem_instance"]
            0
        """
        options = options or ProjectionOptions()
        draws = sample_draws(loss, samples, labels, options, seed)

        def embed(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            return embed_rows(model, samples, rows, batch_size)

        if not model.built:
            embed(np.zeros(1, np.int64))
        owned = {variable.ref() for variable in loss.trainable_variables}
        weights = [variable for variable in model.trainable_variables if variable.ref() not in owned]
        return cls(weights, loss.proxies, ProxyPool(draws, embed), options, seed=seed)

    @property
    def proximal_term(self) -> ProximalTerm:
        """The gradient that ties the weights to the last solution."""
        return ProximalTerm(self.weights, self.anchors, self.proximal_coefficient)

    @property
    def anchors(self) -> list[tf.Variable]:
        """θ̂, the solution of the last instance, in the order of the weights; zero in the first instance."""
        return self._solution.values

    @property
    def best_weights(self) -> list[tf.Variable]:
        """θ_best of this instance, or of the last one as long as this one has no score."""
        return self._best_weights.values

    @property
    def watches_every_step(self) -> bool:
        """True if an instance is judged after every step."""
        return self.options.ccp_step_at_batch

    @property
    def logs(self) -> dict[str, Any]:
        """`problem_instance` and `proximal_coefficient`."""
        return {
            "problem_instance": int(self.instance),
            "proximal_coefficient": float(self.proximal_coefficient),
        }

    def begin(self) -> None:
        """Begins an instance: chooses the first proxies, unless `ccp_random_init`."""
        self._clear_record()
        self._set_coefficient()
        if self.chooser is not None and not self.options.ccp_random_init:
            self.chooser.choose_first()

    def after_step(self, labels: tf.Tensor, embeddings: tf.Tensor) -> None:
        """Records the embeddings of a training step in the memory of the pool, if there is one."""
        if self.memory is not None:
            self.memory.record(labels, embeddings)

    def after_scores(self, scores: Mapping[str, float]) -> None:
        """Judges the instance by the score of a step, with `ccp_step_at_batch`."""
        if self.options.ccp_step_at_batch:
            self.update(monitored_score(scores, self._monitor))

    def after_validation(self, epoch: int, logs: dict[str, Any]) -> None:
        """Judges the instance by the score of a validation; adds `proxy_staleness` if it was measured."""
        if self.options.ccp_step_at_batch:
            return
        self.update(monitored_score(logs, self._monitor))
        if self.last_staleness is not None:
            logs["proxy_staleness"] = self.last_staleness

    def update(self, score: float) -> bool:
        """Judges the instance by a score, and begins the next one if it ends.

        Args:
            score: the monitored score; NaN is never better.

        Returns:
            True if a new instance begins.
        """
        options = self.options
        self.validations.assign_add(1)
        # Measuring embeds images, which would take too long after every step.
        if self.chooser is not None and (
            not options.ccp_step_at_batch or options.ccp_reset_rule == "staleness"
        ):
            self.last_staleness = self.chooser.staleness()
        if int(self.validations) < options.ccp_min_iterations:
            return False
        if options.ccp_reset_rule != "fixed":  # Its solution is the last point, whatever the score.
            self._record(score if self._stop_at_min else -score)
        if not self._is_over():
            return False
        self._begin_next()
        return True

    def _is_over(self) -> bool:
        """True if the instance ends, given that it has had its fewest validations."""
        options = self.options
        most = options.ccp_max_iterations
        if most is not None and int(self.validations) >= most:
            return True
        if options.ccp_reset_rule == "patience":
            return int(self.stale) >= options.ccp_patience
        if options.ccp_reset_rule == "staleness":
            assert self.last_staleness is not None
            return self.last_staleness > options.ccp_staleness_threshold
        return True

    def _record(self, quantity: float) -> None:
        if quantity < float(self.best_score) - _MIN_IMPROVEMENT:
            self.stale.assign(0)
            self.best_score.assign(quantity)
            self._keep_best()
        else:
            self.stale.assign_add(1)

    def _keep_best(self) -> None:
        self._best_weights.take()
        if self.chooser is not None:
            self.chooser.keep_best()

    def _begin_next(self) -> None:
        if float(self.best_score) >= _NO_SCORE:  # Without any score, the solution is the present point.
            self._keep_best()
        self.instance.assign_add(1)
        self._solution.copy_from(self._perturbed(self._best_weights.values))
        self._set_coefficient()
        if self.chooser is not None:
            self.chooser.choose_next()
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
        """Values with the noise of `ccp_perturb_noise`, relative to the root mean square of each."""
        noise = self.options.ccp_perturb_noise
        if not noise:
            return [value.read_value() for value in values]
        noisy = []
        for i, value in enumerate(values):
            seed = [self._seed + i, int(self.instance)]
            deviation = noise * tf.sqrt(tf.reduce_mean(tf.square(value)))
            noisy.append(value + deviation * tf.random.stateless_normal(value.shape, seed, dtype=value.dtype))
        return noisy


def _state(value: object, dtype: tf.DType, name: str) -> tf.Variable:
    return tf.Variable(value, trainable=False, dtype=dtype, name=name)


def sample_draws(
    loss: MetricLoss, samples: Any, labels: npt.ArrayLike, options: ProjectionOptions, seed: int
) -> Draws:
    """Returns the draws of samples from which the proxies of a loss are chosen; see `ProxyPool`.

    Args:
        loss: the loss.
        samples: anything of the length N.
        labels: integers [N] in 0..C-1; every class has a sample.
        options: the options of the projections.
        seed: seed of the draws.

    Raises:
        ValueError: if the loss has no proxies, the labels do not fit the samples or the loss, the options ask
            for a memory of embeddings, or one of them has no effect.
    """
    if loss.proxies is None:
        raise ValueError(f"{type(loss).__name__} has no proxies; expected a loss with proxies, such as CCP")
    numbers = np.asarray(labels)
    if numbers.shape != (len(samples),):
        raise ValueError(f"labels have the shape {numbers.shape}; expected ({len(samples)},)")
    if options.pool_memory_steps:
        raise ValueError(
            f"pool_memory_steps is {options.pool_memory_steps}; expected 0, as samples have no image ids"
        )
    for name, rule in (("ccp_patience", "patience"), ("ccp_staleness_threshold", "staleness")):
        if getattr(options, name) != getattr(ProjectionOptions, name) and options.ccp_reset_rule != rule:
            raise ValueError(
                f"{name} is {getattr(options, name)} with ccp_reset_rule={options.ccp_reset_rule!r}, where "
                f"it has no effect; expected ccp_reset_rule={rule!r}"
            )
    window = options.draws(loss.proxies.proxies_per_class)
    draws = OnePerClassSampler(numbers, seed=seed, window=window).draws
    expected, found = loss.proxies.num_classes, int(numbers.max()) + 1
    if found != expected:
        raise ValueError(f"the labels have {found} classes; expected {expected}, as the loss has")
    return draws
