"""Which images make up a batch: samplers that are pure functions of (seed, step)."""

from __future__ import annotations

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


class ImagesByClass:
    """Indices of the images of each class, in one array.

    Attributes:
        sizes: int64 [C], number of images of each class.
    """

    def __init__(self, labels: np.ndarray[Any, Any]):
        """Sorts the images by class.

        Args:
            labels: integers [N] in 0..C-1, the class of each image; every class has an image.

        Raises:
            ValueError: if `labels` is empty, not a list of integers, negative, or leaves out a class.
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
        """Number of classes C."""
        return len(self.sizes)

    @property
    def mean_size(self) -> float:
        """Images per class, on average."""
        return len(self._indices) / len(self.sizes)

    def check_classes_per_batch(self, number: int) -> None:
        """Checks that a batch can hold so many distinct classes.

        Raises:
            ValueError: if it cannot.
        """
        if not 1 <= number <= len(self):
            raise ValueError(
                f"classes_per_batch must be between 1 and the number of training classes, {len(self)}, "
                f"found {number}"
            )

    def indices(self, classes: IntArray, places: IntArray) -> IntArray:
        """Index of the `places[i, k]`-th image of `classes[i]`."""
        return self._indices[self._begin[classes][:, None] + places]


_STEPS_AT_A_TIME = 32
# Orders of so many images are made at a time: a few megabytes.
_IMAGES_AT_A_TIME = 1 << 16


class StepBlocks:
    """A function of the step, computed for a block of steps at once.

    NumPy's calls cost more than the work that a single batch gives them. What a step gets does not depend on
    the blocks.
    """

    def __init__(self, compute: Callable[[IntArray], IntArray], images_per_step: float):
        """Wraps a function.

        Args:
            compute: from steps, int64 [S], to what each of them gets, [S, ...].
            images_per_step: number of images that a step looks at, by which blocks are made smaller.
        """
        self._compute = compute
        self._size = int(min(max(_IMAGES_AT_A_TIME // max(images_per_step, 1), 1), _STEPS_AT_A_TIME))
        # A block and its neighbour: steps are asked for in order, and again where a run goes on.
        self._block = functools.lru_cache(maxsize=2)(self._compute_block)

    def __call__(self, step: int) -> IntArray:
        """Returns what `step` gets."""
        number, place = divmod(step, self._size)
        return self._block(number)[place].copy()

    def _compute_block(self, number: int) -> IntArray:
        return self._compute(np.arange(number * self._size, (number + 1) * self._size))


def class_visits(order: PermutationWindows, steps: IntArray) -> tuple[IntArray, IntArray]:
    """The classes of batches, and how often each was visited before.

    Args:
        order: the stream of classes; a window is a batch.
        steps: int64 [S], consecutive or not.

    Returns:
        Classes and numbers of earlier visits, both int64 [S * classes per batch], step after step.
    """
    classes = np.concatenate([order(step) for step in steps.tolist()])
    places = (steps[:, None] * order.window + np.arange(order.window)).reshape(-1)
    return classes, places // order.size


def sample_major(images: IntArray, num_steps: int) -> IntArray:
    """Rows of images of one class, [S * N, M], as batches [S, M * N]: first the first image of every row."""
    samples = images.shape[1]
    return images.reshape(num_steps, -1, samples).transpose(0, 2, 1).reshape(num_steps, -1)


def make_sampler(options: BatchOptions, labels: IntArray, seed: int) -> Sampler:
    """The sampler of training batches.

    Args:
        options: complete ones.
        labels: int [N], class of each training image.
        seed: of the order of classes and images.
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
