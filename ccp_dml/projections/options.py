"""The options of alternating projections, checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ProjectionOptions:
    """How problem instances follow each other; see `docs/algorithm.md` for the terms.

    Attributes:
        coefficient: λ, the weight of the proximal term of the first regularised instance; non-negative.
        decay: factor on λ per instance, positive: instance t has λ·decay^t, and 0 for t = 0.
        min_iterations: validations before an instance may end or its scores count, at least 1.
        pool_size: b, embeddings per class that proxies are chosen from; 1 or less: the K draws are the
            proxies; below K: b·K.
        random_init: start from the proxies as they are initialised instead of choosing them from samples.
        normalized_embeddings: choose on unit vectors (the raw vectors are stored).
        use_representative_proxy: choose proxies at all; if not, only the proximal term remains.
        perturb_noise: the solution that an instance is pulled to is perturbed by Gaussian noise whose
            standard deviation is this fraction of the root mean square of each variable; non-negative.
        step_at_batch: look at the score after every training step instead of every validation; the score has
            to be one of the step, such as `loss`.
        monitor: name of the score in the epoch logs.
        stop_at_min: lower scores are better.
        min_improvement: a score counts as better if it is so by more than this; non-negative.
        seed: of the perturbation noise.
    """

    coefficient: float = 2e-4
    decay: float = 1.0
    min_iterations: int = 1
    pool_size: int = 12
    random_init: bool = False
    normalized_embeddings: bool = False
    use_representative_proxy: bool = True
    perturb_noise: float = 0.0
    step_at_batch: bool = False
    monitor: str = "map_at_r"
    stop_at_min: bool = False
    min_improvement: float = 1e-5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.coefficient < 0:
            raise ValueError(f"The proximal coefficient is {self.coefficient}; it cannot be negative.")
        if not self.decay > 0:
            raise ValueError(f"The decay of the proximal coefficient is {self.decay}; it must be positive.")
        if self.min_iterations < 1:
            raise ValueError(
                f"min_iterations of an instance is {self.min_iterations}; at least 1 is expected."
            )
        if self.min_improvement < 0:
            raise ValueError(f"min_improvement is {self.min_improvement}; it cannot be negative.")
        if self.perturb_noise < 0:
            raise ValueError(f"perturb_noise is {self.perturb_noise}; it cannot be negative.")

    def draws(self, proxies_per_class: int) -> int:
        """Number of draws that the choice of K proxies per class takes."""
        if self.pool_size <= 1:
            return proxies_per_class
        if self.pool_size < proxies_per_class:
            return self.pool_size * proxies_per_class
        return self.pool_size
