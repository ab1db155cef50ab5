"""Which images make up a batch: samplers that are pure functions of (seed, step)."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ccp_dml.data.images_by_class import ImagesByClass
from ccp_dml.data.permutations import IntArray, PermutationWindows, RaggedPermutationWindows
from ccp_dml.data.random_streams import CLASS_ORDER, IMAGES_OF_BATCHES, IMAGES_OF_DRAWS
from ccp_dml.data.step_blocks import StepBlocks, class_visits, sample_major


class Sampler(Protocol):
    """Chooses the images of a training batch."""

    @property
    def batch_size(self) -> int:
        """Number of images of every batch."""

    def batch(self, step: int) -> IntArray:
        """Returns the indices int64 [batch_size] of the images of batch `step`."""


class MPerClassSampler:
    """Batches of M images of each of N classes.

    A pass visits every class once: of the class slots of the stream of batches (N per batch), slots
    `p * C … p * C + C - 1` hold each of the C classes exactly once. The classes of one batch are distinct;
    where a pass does not fill its last batch, classes of the next pass that are in it already move behind it.
    Each visit takes the next M images of the class: no image a second time before all images of the class
    were used, and none twice in a batch unless the class has fewer than M (then it repeats images). Order of
    classes and of images is new in each pass over them.
    """

    def __init__(
        self, labels: np.ndarray[Any, Any], classes_per_batch: int, samples_per_class: int, seed: int = 0
    ):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, the class of each image; every class has an image.
            classes_per_batch: distinct classes per batch, 1..C.
            samples_per_class: images per class and batch, at least 1.
            seed: any integer; batches are a function of it and of the step alone.

        Raises:
            ValueError: if an argument is out of range.
        """
        self._images = ImagesByClass(labels)
        self._images.check_classes_per_batch(classes_per_batch)
        if samples_per_class < 1:
            raise ValueError(f"samples_per_class must be at least 1, found {samples_per_class}")
        self.classes_per_batch, self.samples_per_class, self.seed = classes_per_batch, samples_per_class, seed
        self._classes = PermutationWindows(len(self._images), classes_per_batch, seed, CLASS_ORDER)
        self._places = RaggedPermutationWindows(
            self._images.sizes, samples_per_class, seed, IMAGES_OF_BATCHES
        )
        self._batches = StepBlocks(self._compute, classes_per_batch * self._images.mean_size)

    @property
    def batch_size(self) -> int:
        """Images per batch."""
        return self.classes_per_batch * self.samples_per_class

    @property
    def steps_per_pass(self) -> int:
        """Smallest number of consecutive batches that is sure to visit every class, from step 0 on."""
        return -(-len(self._images) // self.classes_per_batch)

    def batch(self, step: int) -> IntArray:
        """Returns indices into `labels`, int64 [classes_per_batch * samples_per_class], of batch `step`.

        Sample-major: the first image of every class, then the second of every class, and so on.
        """
        return self._batches(step)

    def _compute(self, steps: IntArray) -> IntArray:
        classes, visits = class_visits(self._classes, steps)
        images = self._images.indices(classes, self._places(classes, visits))
        return sample_major(images, len(steps))


class OnePerClassSampler:
    """Draws of one image of each class, from which proxies are chosen.

    No image of a class is drawn twice before all of them were.
    """

    def __init__(self, labels: np.ndarray[Any, Any], seed: int = 0, window: int = 1):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, the class of each image; every class has an image.
            seed: any integer; draws are a function of it and of their number alone.
            window: draws `i * window … i * window + window - 1` take distinct images of each class that has
                at least `window`: the number of draws that are used together.

        Raises:
            ValueError: if `labels` or `window` is out of range.
        """
        self._images = ImagesByClass(labels)
        self._places = RaggedPermutationWindows(self._images.sizes, window, seed, IMAGES_OF_DRAWS)
        self._window = window

    def draw(self, number: int) -> IntArray:
        """Returns draw `number`: indices into `labels`, int64 [C], one image of each class 0..C-1."""
        return self.draws(number, 1)[0]

    def draws(self, first: int, count: int) -> IntArray:
        """Returns draws `first … first + count - 1`: int64 [count, C]."""
        classes = np.arange(len(self._images))
        rows = []
        for window in range(first // self._window, -(-(first + count) // self._window)):
            places = self._places(classes, np.full(len(classes), window))
            rows.append(self._images.indices(classes, places).T)
        begin = first % self._window
        return np.concatenate(rows)[begin : begin + count] if count else np.empty((0, len(classes)), np.int64)
