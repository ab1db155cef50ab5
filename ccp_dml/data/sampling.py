"""Samplers: the images of a batch as a function of the seed and the step."""

from __future__ import annotations

import abc
import functools
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ccp_dml.data.options import BatchOptions
from ccp_dml.data.random_streams import (
    CLASS_ORDER,
    IMAGES_OF_BATCHES,
    IMAGES_OF_DRAWS,
    ORDER_OF_IMAGES,
    REPRESENTATIVES,
    IntArray,
    PermutationWindows,
    RaggedPermutationWindows,
)

_STEPS_AT_A_TIME = 32
# Orders of this many images are computed at a time, which takes a few megabytes.
_IMAGES_AT_A_TIME = 1 << 16


class Sampler(Protocol):
    """Chooses the images of training batches."""

    @property
    def batch_size(self) -> int:
        """Number of images of every batch."""

    def batch(self, step: int) -> IntArray:
        """Returns the indices of the images of batch `step`, int64 [batch_size]."""


def make_sampler(options: BatchOptions, labels: IntArray, seed: int) -> Sampler:
    """Returns the sampler of training batches.

    Args:
        options: complete options.
        labels: int [N], class of each training image.
        seed: seed of the order of classes and images.
    """
    if options.sampler != "m_per_class":
        assert options.batch_size is not None
        if options.sampler == "random":
            return RandomSampler(len(labels), options.batch_size, seed)
        return ClassUniformSampler(labels, options.batch_size, seed)
    sizes = options.classes_per_batch, options.samples_per_class
    if options.representative_lifetime:
        return RepresentativeSampler(labels, *sizes, options.representative_lifetime, seed)
    return MPerClassSampler(labels, *sizes, seed)


class ClassSampler(abc.ABC):
    """Base of the samplers that choose classes first, and then images of each class.

    A pass visits every class once: of the class slots of the stream of batches (`num_slots` per batch), slots
    `p * C … p * C + C - 1` hold each of the C classes exactly once, in an order that is new in each pass.
    Classes of a batch are distinct if there are enough: where a pass ends inside a batch, classes of the next
    pass that are already in the batch move to the place right after it.

    Attributes:
        batch_size: number of images of every batch.
    """

    def __init__(self, images: ImagesByClass, num_slots: int, samples_per_class: int, seed: int):
        self.batch_size = num_slots * samples_per_class
        self._images, self._num_slots = images, num_slots
        self._classes = PermutationWindows(len(images), num_slots, seed, CLASS_ORDER)
        # Some samplers order the images of a class twice.
        self._batches = StepBlocks(self._compute, 2 * num_slots * images.mean_size)

    def batch(self, step: int) -> IntArray:
        """Returns the indices of the images of batch `step`, int64 [batch_size].

        The order is sample-major: first the first image of every class, then the second of every class, etc.
        """
        return self._batches(step)

    @abc.abstractmethod
    def _places(self, steps: IntArray, classes: IntArray, visits: IntArray) -> IntArray:
        """Chooses the images of classes by their place in the class.

        Args:
            steps: int64 [S], step of each class slot.
            classes: int64 [S], class of each slot.
            visits: int64 [S], number of earlier visits of the class.

        Returns:
            int64 [S, samples_per_class].
        """

    def _compute(self, steps: IntArray) -> IntArray:
        classes = np.concatenate([self._classes(step) for step in steps.tolist()])
        slots = (steps[:, None] * self._num_slots + np.arange(self._num_slots)).reshape(-1)
        visits = slots // len(self._images)
        places = self._places(np.repeat(steps, self._num_slots), classes, visits)
        images = self._images.indices(classes, places)
        samples = images.shape[1]
        return images.reshape(len(steps), -1, samples).transpose(0, 2, 1).reshape(len(steps), -1)


class MPerClassSampler(ClassSampler):
    """Batches of M images of each of N classes; see `ClassSampler` for the classes.

    Each visit takes the next M images of the class. No image is used a second time before all images of the
    class were used, and none twice in a batch, unless the class has fewer than M images and repeats them. The
    order of the images is new in each pass over them.

    Example:
        >>> labels = np.array([0, 0, 0, 1, 1, 2, 2])
        >>> sampler = MPerClassSampler(labels, classes_per_batch=2, samples_per_class=2, seed=1)
        >>> np.bincount(labels[sampler.batch(0)]).tolist().count(2)
        2
    """

    def __init__(
        self, labels: np.ndarray[Any, Any], classes_per_batch: int, samples_per_class: int, seed: int = 0
    ):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, class of each image; every class has an image.
            classes_per_batch: distinct classes per batch, 1..C.
            samples_per_class: images per class and batch, at least 1.
            seed: any integer.

        Raises:
            ValueError: if an argument is out of range.
        """
        images = ImagesByClass(labels)
        images.check_classes_per_batch(classes_per_batch)
        if samples_per_class < 1:
            raise ValueError(f"samples_per_class must be at least 1, found {samples_per_class}")
        super().__init__(images, classes_per_batch, samples_per_class, seed)
        self._order = RaggedPermutationWindows(images.sizes, samples_per_class, seed, IMAGES_OF_BATCHES)

    def _places(self, steps: IntArray, classes: IntArray, visits: IntArray) -> IntArray:
        return self._order(classes, visits)


class RepresentativeSampler(ClassSampler):
    """Batches like those of `MPerClassSampler` whose first image of each class stays for a *lifetime*.

    Every class has one representative at a time. The representatives of all classes change together, every
    `lifetime` batches. No image represents its class a second time before all images of the class did.

    Each visit adds the next M - 1 images of the class to its representative. They differ from it and, unless
    the class has fewer than M images, from one another. Counted from the first step of the run, visits are
    divided into passes over the other images; within one lifetime, a pass holds no image twice. The
    order is new in each pass and in each lifetime. A class of a single image repeats its representative.

    Example:
        >>> sampler = RepresentativeSampler(np.array([0, 0, 0, 1, 1, 1]), 2, 2, lifetime=5)
        >>> set(sampler.batch(0)[:2]) == set(sampler.batch(4)[:2])
        True
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
            labels: integers [N] in 0..C-1, class of each image; every class has an image.
            classes_per_batch: distinct classes per batch, 1..C.
            samples_per_class: images per class and batch, including the representative, at least 2.
            lifetime: number of batches for which a representative stays, at least 1.
            seed: any integer.

        Raises:
            ValueError: if an argument is out of range.
        """
        images = ImagesByClass(labels)
        images.check_classes_per_batch(classes_per_batch)
        if samples_per_class < 2:
            raise ValueError(
                f"samples_per_class must be at least 2, one of them the representative, "
                f"found {samples_per_class}"
            )
        if lifetime < 1:
            raise ValueError(f"lifetime must be at least 1, found {lifetime}")
        super().__init__(images, classes_per_batch, samples_per_class, seed)
        self._lifetime = lifetime
        self._first = RaggedPermutationWindows(images.sizes, 1, seed, REPRESENTATIVES)
        num_others = np.maximum(images.sizes - 1, 1)
        self._others = RaggedPermutationWindows(num_others, samples_per_class - 1, seed, IMAGES_OF_BATCHES)

    def _places(self, steps: IntArray, classes: IntArray, visits: IntArray) -> IntArray:
        lifetimes = steps // self._lifetime
        first = self._first(classes, lifetimes)
        others = self._others(classes, visits, lifetimes)
        # From places among the other images to places among all images.
        others += (others >= first) & (self._images.sizes[classes] > 1)[:, None]
        return np.concatenate([first, others], 1)


class ClassUniformSampler(ClassSampler):
    """Batches of one image of each of B classes: every class comes equally often, whatever its size.

    Each visit takes the next image of the class; none comes a second time before all images of the class were
    used. A batch larger than the number of classes visits each class about `batch_size / C` times, and may
    hold an image twice if the images of a class run out inside the batch.

    Example:
        >>> labels = np.array([0, 0, 0, 0, 1, 2])
        >>> sorted(labels[ClassUniformSampler(labels, batch_size=3).batch(7)].tolist())
        [0, 1, 2]
    """

    def __init__(self, labels: np.ndarray[Any, Any], batch_size: int, seed: int = 0):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, class of each image; every class has an image.
            batch_size: images per batch, at least 1.
            seed: any integer.

        Raises:
            ValueError: if `labels` or `batch_size` is out of range.
        """
        _check_batch_size(batch_size)
        images = ImagesByClass(labels)
        super().__init__(images, batch_size, 1, seed)
        self._order = RaggedPermutationWindows(images.sizes, 1, seed, IMAGES_OF_BATCHES)

    def _places(self, steps: IntArray, classes: IntArray, visits: IntArray) -> IntArray:
        return self._order(classes, visits)


class RandomSampler:
    """Batches of any images: a class comes as often as it has images.

    A pass uses every image once: places `p * N … p * N + N - 1` of the stream of batches hold each of the N
    images exactly once, in an order that is new in each pass. The images of a batch are distinct: where a
    pass ends inside a batch, images of the next pass that are already in the batch move to the place right
    after it. A batch larger than N repeats images, but none a second time before all were used. The numbers
    of classes and of positive pairs in a batch are left to chance.

    Attributes:
        batch_size: number of images of every batch.

    Example:
        >>> sampler = RandomSampler(num_images=4, batch_size=2)
        >>> sorted([*sampler.batch(0), *sampler.batch(1)])
        [0, 1, 2, 3]
    """

    def __init__(self, num_images: int, batch_size: int, seed: int = 0):
        """Creates the sampler.

        Args:
            num_images: number of images N, at least 1.
            batch_size: images per batch, at least 1.
            seed: any integer.

        Raises:
            ValueError: if a number is less than 1.
        """
        _check_batch_size(batch_size)
        if num_images < 1:
            raise ValueError(f"num_images must be at least 1, found {num_images}")
        self.batch_size = batch_size
        self._order = PermutationWindows(num_images, batch_size, seed, ORDER_OF_IMAGES)

    def batch(self, step: int) -> IntArray:
        """Returns the indices of the images of batch `step`, int64 [batch_size] in 0..N-1."""
        return self._order(step)


class OnePerClassSampler:
    """Draws of one image of each class, from which proxies are chosen.

    No image of a class is drawn twice before all of them were.
    """

    def __init__(self, labels: np.ndarray[Any, Any], seed: int = 0, window: int = 1):
        """Creates the sampler.

        Args:
            labels: integers [N] in 0..C-1, class of each image; every class has an image.
            seed: any integer; draws are a function of it and of their number.
            window: number of draws that are used together: draws `i * window … i * window + window - 1` take
                distinct images of each class that has enough, and all images of each other class.

        Raises:
            ValueError: if `labels` or `window` is out of range.
        """
        self._images = ImagesByClass(labels)
        self._order = RaggedPermutationWindows(
            self._images.sizes, window, seed, IMAGES_OF_DRAWS, repeats_short=True
        )
        self._window = window

    def draws(self, first: int, count: int) -> IntArray:
        """Returns draws `first … first + count - 1`.

        Returns:
            Indices into `labels`, int64 [count, C]; column c holds images of class c.
        """
        classes = np.arange(len(self._images))
        rows = [np.empty((0, len(classes)), np.int64)]
        for window in range(first // self._window, -(-(first + count) // self._window)):
            places = self._order(classes, np.full(len(classes), window))
            rows.append(self._images.indices(classes, places).T)
        begin = first % self._window
        return np.concatenate(rows)[begin : begin + count]


class ImagesByClass:
    """Indices of the images of each class, in one array.

    Attributes:
        sizes: int64 [C], number of images of each class.
    """

    def __init__(self, labels: np.ndarray[Any, Any]):
        """Sorts the images by class.

        Args:
            labels: integers [N] in 0..C-1, class of each image; every class has an image.

        Raises:
            ValueError: if `labels` is empty, not a list of integers, negative, or skips a class.
        """
        labels = np.asarray(labels)
        if labels.ndim != 1 or not len(labels) or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"labels must be a non-empty list of integers, found {labels.dtype} {labels.shape}"
            )
        if labels.min() < 0:
            raise ValueError(f"labels must be 0 or more, found {labels.min()}")
        self.sizes = np.bincount(labels).astype(np.int64)
        if not self.sizes.all():
            raise ValueError(f"class {int(np.argmin(self.sizes))} of {len(self.sizes)} has no image")
        self._indices = np.argsort(labels, kind="stable").astype(np.int64)
        self._begin = np.cumsum(self.sizes) - self.sizes

    def __len__(self) -> int:
        """Returns the number of classes C."""
        return len(self.sizes)

    @property
    def mean_size(self) -> float:
        """Mean number of images of a class."""
        return len(self._indices) / len(self.sizes)

    def check_classes_per_batch(self, number: int) -> None:
        """Raises `ValueError` unless a batch can hold this number of distinct classes."""
        if not 1 <= number <= len(self):
            raise ValueError(
                f"classes_per_batch must be between 1 and the number of training classes, {len(self)}, "
                f"found {number}"
            )

    def indices(self, classes: IntArray, places: IntArray) -> IntArray:
        """Returns the index of image `places[i, k]` of class `classes[i]`, int64 [S, K]."""
        return self._indices[self._begin[classes][:, None] + places]


class StepBlocks:
    """A function of the step that is computed for a block of steps at once.

    For a single step, calling NumPy would cost more than its work. Results do not depend on the blocks.
    """

    def __init__(self, compute: Callable[[IntArray], IntArray], images_per_step: float):
        """Wraps a function.

        Args:
            compute: function from steps, int64 [S], to one result per step, [S, ...].
            images_per_step: number of images that are ordered for one step; many make blocks smaller.
        """
        self._compute = compute
        self._size = int(min(max(_IMAGES_AT_A_TIME // max(images_per_step, 1), 1), _STEPS_AT_A_TIME))
        # Steps come in order, and a run that continues may repeat some: two blocks are enough.
        self._block = functools.lru_cache(maxsize=2)(self._compute_block)

    def __call__(self, step: int) -> IntArray:
        """Returns a copy of the result of a step."""
        number, place = divmod(step, self._size)
        return self._block(number)[place].copy()

    def _compute_block(self, number: int) -> IntArray:
        return self._compute(np.arange(number * self._size, (number + 1) * self._size))


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, found {batch_size}")
