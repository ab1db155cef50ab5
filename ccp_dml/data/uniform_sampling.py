"""Samplers whose batches are not made of groups of a class: random images, and random classes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ccp_dml.data.images_by_class import ImagesByClass
from ccp_dml.data.permutations import IntArray, PermutationWindows, RaggedPermutationWindows
from ccp_dml.data.random_streams import CLASS_ORDER, IMAGES_OF_BATCHES, ORDER_OF_IMAGES
from ccp_dml.data.step_blocks import StepBlocks, class_visits


class RandomSampler:
    """Batches of any images: a class comes as often as it has images.

    A pass uses every image once: places `p * N … p * N + N - 1` of the stream of batches hold each of the N
    images exactly once, in an order that is new in each pass. The images of one batch are distinct; where a
    pass does not fill its last batch, images of the next pass that are in it already move behind it. If a
    batch is larger than N, it repeats images, none a second time before all were used. How many classes, and
    pairs of a class, a batch holds is left to chance.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int = 0):
        """Creates the sampler.

        Args:
            num_images: number of images N, at least 1.
            batch_size: images per batch, at least 1.
            seed: any integer; batches are a function of it and of the step alone.

        Raises:
            ValueError: if a number is less than 1.
        """
        _check(batch_size)
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, found {num_images}")
        self.batch_size, self.seed = batch_size, seed
        self._order = PermutationWindows(num_images, batch_size, seed, ORDER_OF_IMAGES)

    def batch(self, step: int) -> IntArray:
        """Returns the indices, int64 [batch_size] in 0..N-1, of the images of batch `step`."""
        return self._order(step)


class ClassUniformSampler:
    """Batches of one image of each of B classes: every class comes equally often, however large it is.

    A pass visits every class once: places `p * C … p * C + C - 1` of the stream of batches hold an image of
    each of the C classes, in an order that is new in each pass. Each visit takes the next image of the class,
    none a second time before all images of the class were used. Up to C images a batch has distinct classes:
    it is that of `MPerClassSampler` with one image per class. A larger batch visits each class
    about `batch_size / C` times, and may hold an image twice: where a class has fewer images than visits, or
    where they were all used in the middle of the batch and come again in a new order.
    """

    def __init__(self, labels: np.ndarray[Any, Any], batch_size: int, seed: int = 0):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, the class of each image; every class has an image.
            batch_size: images per batch, at least 1.
            seed: any integer; batches are a function of it and of the step alone.

        Raises:
            ValueError: if `labels` or `batch_size` is out of range.
        """
        _check(batch_size)
        self._images = ImagesByClass(labels)
        self.batch_size, self.seed = batch_size, seed
        self._classes = PermutationWindows(len(self._images), batch_size, seed, CLASS_ORDER)
        self._places = RaggedPermutationWindows(self._images.sizes, 1, seed, IMAGES_OF_BATCHES)
        self._batches = StepBlocks(self._compute, batch_size * self._images.mean_size)

    def batch(self, step: int) -> IntArray:
        """Returns indices into `labels`, int64 [batch_size], of batch `step`."""
        return self._batches(step)

    def _compute(self, steps: IntArray) -> IntArray:
        classes, visits = class_visits(self._classes, steps)
        images = self._images.indices(classes, self._places(classes, visits))
        return images.reshape(len(steps), self.batch_size)


def _check(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
