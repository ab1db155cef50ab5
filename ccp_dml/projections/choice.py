"""The choice of proxies among embedded training images, and their staleness."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from ccp_dml.distributed.snapshots import WeightSnapshot
from ccp_dml.geometry import greedy_k_center, normalize
from ccp_dml.models.proxies import Proxies
from ccp_dml.projections.options import ProjectionOptions
from ccp_dml.projections.pool import ProxyPool

_UNKNOWN_IMAGE = -1
_MOST_MEASURED = 256


class ProxyChooser(tf.Module):
    """Replaces proxies by embeddings of training images that cover their classes.

    New proxies are drawn from a pool and chosen by greedy k-center: each is the image of its class that is
    farthest from those already covered, by the best proxies of the last problem instance and the new ones.

    Attributes:
        draws: int64 variable, number of draws of the pool so far.
        images: int64 variable [K, C], the image that each proxy was chosen from, -1 if none.
    """

    def __init__(
        self, proxies: Proxies, pool: ProxyPool, options: ProjectionOptions, normalization: str = "none"
    ) -> None:
        """Creates the state; no proxy is replaced yet.

        Args:
            proxies: the proxies, K for each of C classes.
            pool: embedded training images.
            options: `pool_size` and `ccp_normalized_embeddings` are used.
            normalization: normalisation of the loss, after which staleness is measured.
        """
        super().__init__(name="proxy_chooser")
        self._proxies, self._pool, self._options = proxies, pool, options
        self._normalization = normalization
        self._best = WeightSnapshot([proxies.embeddings], name="best_proxies")
        self._chosen = WeightSnapshot([proxies.embeddings], name="chosen_proxies")
        unknown = np.full((proxies.proxies_per_class, proxies.num_classes), _UNKNOWN_IMAGE, np.int64)
        self.draws = tf.Variable(0, trainable=False, dtype=tf.int64, name="draws")
        self.images = tf.Variable(unknown, trainable=False, name="proxy_images")
        self._greedy_k_center = tf.function(greedy_k_center)

    @property
    def best(self) -> tf.Variable:
        """The proxies of the last `keep_best`; zero before the first."""
        return self._best.values[0]

    def keep_best(self) -> None:
        """Keeps the present proxies, which are covered when the next ones are chosen."""
        self._best.take()

    def choose_first(self) -> None:
        """Chooses proxies if nothing has been solved yet: the origin is covered."""
        self._choose([tf.zeros_like(shard) for shard in self._proxies.shards_of(self.best)])

    def choose_next(self) -> None:
        """Chooses proxies if the best ones of the last instance are covered."""
        self._choose(self._proxies.shards_of(self.best))

    def staleness(self) -> float:
        """Measures how far the images of the proxies have moved since these were chosen; see `staleness`.

        At most 256 proxies, evenly spaced, are measured; their images are embedded.

        Returns:
            The staleness; infinite if proxies were never chosen from images.
        """
        images = self.images.numpy().reshape(-1)
        if (images == _UNKNOWN_IMAGE).any():
            return float("inf")
        rows = np.unique(np.linspace(0, len(images) - 1, min(len(images), _MOST_MEASURED)).astype(np.int64))
        chosen = self._proxies.rows_of(self._chosen.values[0], rows)
        present = tf.constant(self._pool.embed_images(images[rows]))
        return self._pool.workers.from_chief(staleness(chosen, present, self._normalization))

    def _choose(self, covered: Sequence[tf.Tensor]) -> None:
        """Replaces the proxies.

        Args:
            covered: float32 [K, n, D] for the n classes of each local shard.
        """
        per_class, workers = self._proxies.proxies_per_class, self._pool.workers
        count = self._options.draws(per_class)
        embeddings, images = self._pool(int(self.draws), count)
        self.draws.assign_add(count)
        local = workers.local_slice(self._proxies.num_classes)
        all_centers, all_images = [], []
        # Shard by shard: neither the pool nor the table of all classes is ever in one place.
        for classes, covered_shard in zip(self._proxies.classes_here, covered):
            # The classes of the shard whose images are in the local pool.
            first = max(classes.start, local.start)
            last = max(first, min(classes.stop, local.stop))
            candidates = slice(first - local.start, last - local.start)
            centers, chosen = embeddings[:, candidates], images[:, candidates]
            if self._options.pool_size > 1:
                picks, centers = self._greedy_k_center(
                    tf.constant(centers),
                    covered_shard[:, first - classes.start : last - classes.start],
                    per_class,
                    normalized=self._options.ccp_normalized_embeddings,
                )
                chosen = np.take_along_axis(chosen, np.asarray(picks), axis=0)
            all_centers.append(centers)
            all_images.append(chosen)
        if self._proxies.shards.is_single:
            all_centers = [workers.gather(np.asarray(centers), axis=1) for centers in all_centers]
        self._proxies.reset_shards(all_centers)
        self.images.assign(workers.gather(np.concatenate(all_images, axis=1), axis=1))
        self._chosen.take()


def staleness(proxies: tf.Tensor, present: tf.Tensor, normalization: str = "none") -> float:
    """Mean distance of proxies from the present embeddings of their images, relative to their spread.

    `mean_i |p_i - x_i| / mean_i |p_i - mean_j p_j|`: 0 means that every image is where its proxy is, and 1
    that images are as far from their proxies as the proxies are from their centre. It has no unit and does
    not depend on the scale of the embedding.

    Args:
        proxies: [N, D], the proxies.
        present: [N, D]; row i is the present embedding of the image that proxy i was chosen from.
        normalization: applied to both before distances are measured.

    Returns:
        The staleness, non-negative; infinite if the proxies coincide while their images do not.

    Raises:
        ValueError: if the shapes differ.
    """
    proxies, present = tf.cast(proxies, tf.float32), tf.cast(present, tf.float32)
    if proxies.shape != present.shape:
        raise ValueError(f"present has the shape {present.shape}; expected {proxies.shape}, as of proxies")
    proxies, present = normalize(proxies, normalization), normalize(present, normalization)
    moved = float(tf.reduce_mean(tf.norm(proxies - present, axis=-1)))
    spread = float(tf.reduce_mean(tf.norm(proxies - tf.reduce_mean(proxies, axis=0), axis=-1)))
    if spread > 0:
        return moved / spread
    return float("inf") if moved > 0 else 0.0
