"""M images per class, one of which represents the class for several batches."""

from __future__ import annotations

from typing import Any

import numpy as np

from ccp_dml.data.images_by_class import ImagesByClass
from ccp_dml.data.permutations import IntArray, PermutationWindows, RaggedPermutationWindows
from ccp_dml.data.random_streams import CLASS_ORDER, IMAGES_OF_BATCHES, REPRESENTATIVES
from ccp_dml.data.step_blocks import StepBlocks, class_visits, sample_major


class RepresentativeSampler:
    """Batches of M images of each of N classes, the first of which stays the same for a *lifetime*.

    Every class has one representative at a time. Those of all classes change together, every `lifetime`
    batches: steps `r * lifetime … (r + 1) * lifetime - 1` have the r-th representative of each class. No
    image represents its class a second time before all images of the class did.

    Which classes a batch holds is as in `MPerClassSampler` (a pass visits every class once, the classes of a
    batch are distinct). A visit adds the next M - 1 images of the class to its representative, out of the
    others: they differ from it, and from one another unless the class has fewer than M images (then it
    repeats the others). Counted from the first step of the run, visits are cut into passes over the others,
    and what a lifetime sees of a pass holds none of them twice. The order is new in each pass and in each
    lifetime. A class of a single image consists of its representative alone.
    """

    def __init__(
        self,
        labels: np.ndarray[Any, Any],
        classes_per_batch: int,
        samples_per_class: int,
        lifetime: int,
        seed: int = 0,
    ):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, the class of each image; every class has an image.
            classes_per_batch: distinct classes per batch, 1..C.
            samples_per_class: images per class and batch, the representative included, at least 2.
            lifetime: number of batches for which a representative stays, at least 1.
            seed: any integer; batches are a function of it and of the step alone.

        Raises:
            ValueError: if an argument is out of range.
        """
        self._images = ImagesByClass(labels)
        self._images.check_classes_per_batch(classes_per_batch)
        if samples_per_class < 2:
            raise ValueError(
                f"samples_per_class must be at least 2, one of them the representative, "
                f"found {samples_per_class}"
            )
        if lifetime < 1:
            raise ValueError(f"lifetime must be at least 1, found {lifetime}")
        self.classes_per_batch, self.samples_per_class = classes_per_batch, samples_per_class
        self.lifetime, self.seed = lifetime, seed
        self._classes = PermutationWindows(len(self._images), classes_per_batch, seed, CLASS_ORDER)
        self._first = RaggedPermutationWindows(self._images.sizes, 1, seed, REPRESENTATIVES)
        self._others = RaggedPermutationWindows(
            np.maximum(self._images.sizes - 1, 1), samples_per_class - 1, seed, IMAGES_OF_BATCHES
        )
        self._batches = StepBlocks(self._compute, 2 * classes_per_batch * self._images.mean_size)

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self.classes_per_batch * self.samples_per_class

    def batch(self, step: int) -> IntArray:
        """Returns indices into `labels`, int64 [classes_per_batch * samples_per_class], of batch `step`.

        Sample-major: the representative of every class, then the second image of every class, and so on.
        """
        return self._batches(step)

    def _compute(self, steps: IntArray) -> IntArray:
        classes, visits = class_visits(self._classes, steps)
        lifetimes = np.repeat(steps // self.lifetime, self.classes_per_batch)
        first = self._first(classes, lifetimes)
        others = self._others(classes, visits, lifetimes)
        # Places among the others become places among all, of which the representative's is left out.
        others += (others >= first) & (self._images.sizes[classes] > 1)[:, None]
        images = self._images.indices(classes, np.concatenate([first, others], 1))
        return sample_major(images, len(steps))
