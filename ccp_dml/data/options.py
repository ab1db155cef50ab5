"""The options of data sets, splits, batches and images."""

from __future__ import annotations

import dataclasses

from ccp_dml.kinds import Choice, ImageSize, Integer, Number, PathText, Size, Switch, Text, height_and_width
from ccp_dml.options import Change, Options, option

# After A Metric Learning Reality Check (Musgrave et al. 2020), arXiv 2003.08505.
MLRC = "mlrc"
CONVENTIONAL = "conventional"
ABLATION = "ablation"
PROTOCOLS = (MLRC, CONVENTIONAL, ABLATION)
ALL_FOLDS = "all"
_SHORTER_SIDE_RATIO = 256 / 227

_FOLDER = PathText("a folder")
_ABOVE_ZERO = Number(above=0)
_SHARE = Number(above=0, high=1)
_WITH_CLASSES = {"sampler": ("m_per_class",)}
_WITH_CROPS = {"preprocessing": ("dml",)}


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
    """The data set."""

    dataset: str = option(
        "emoji", Text("the name of a data set"), "Data set; image_folder reads your own images."
    )
    data_dir: str | None = option(
        None,
        _FOLDER,
        "Folder or archive of the source images; without --dataset, it stands for image_folder.",
        Change.FREE,
    )
    download: bool = option(
        False,
        Switch(),
        "Download the source if --data_dir is not given and no registration is needed.",
        Change.FREE,
    )
    check_counts: bool = option(
        True, Switch(), "Require the published numbers of classes and images of a published data set."
    )
    skip_bad_images: bool = option(
        False, Switch(), "Leave out unusable images and name the classes that shrank, instead of stopping."
    )
    crop_to_box: bool = option(
        False, Switch(), "Crop images to the bounding boxes that come with cub, cars196 and inshop."
    )
    prepared_dir: str | None = option(
        None, _FOLDER, "Folder of prepared data (default: TFDS_DATA_DIR, else a cache folder).", Change.FREE
    )
    prepared_shorter_side: int | None = option(
        None, Integer(1), "Prepare and read a copy with images of at most this shorter side (default: none)."
    )
    train_fraction: float = option(
        0.5,
        Number(low=0, high=1),
        "Share of training classes in an image_folder without a manifest; 1 leaves no test.",
        only_with={"closed_set": ("off",)},
    )
    class_order_seed: int | None = option(
        None,
        Integer(0),
        "Seed of a random order in which classes are split into training, validation and test classes "
        "(default: the order of their names).",
        only_with={"closed_set": ("off",)},
    )


@dataclasses.dataclass(frozen=True)
class SplitOptions(Options):
    """The split into training and validation classes."""

    protocol: str | None = option(
        None,
        Choice(PROTOCOLS),
        "mlrc: class folds; conventional: train on all classes, monitor the test classes; ablation: validate "
        "on the last third (default: hold out --validation_fraction).",
    )
    validation_fraction: float | None = option(
        None,
        Number(low=0, below=1),
        "Share of the training classes held out for validation (default: 0.25; 0 if --monitor_split=test).",
    )
    num_folds: int | None = option(
        None, Integer(2), "Number of contiguous blocks of the training classes (default: 4 with folds)."
    )
    fold: int | str | None = option(
        None,
        Integer(1, word=ALL_FOLDS),
        "The fold that validates, from 1, or all in turn; fold 1 holds the last classes "
        "(default: all with --protocol=mlrc).",
    )
    closed_set: str = option(
        "off",
        Choice(("off", "shuffled", "in_order"), on="shuffled", off="off"),
        "Train, validate and test on 65, 15 and 20 % of the images of each class; a bare --closed_set means "
        "shuffled.",
    )
    label_noise: float = option(
        0.0, Number(low=0, below=1), "Share of the training images that get the label of another class."
    )
    data_seed: int = option(0, Integer(0), "Seed of --closed_set and --label_noise, independent of --seed.")


@dataclasses.dataclass(frozen=True)
class BatchOptions(Options):
    """The batches."""

    sampler: str = option(
        "m_per_class",
        Choice(("m_per_class", "random", "class_uniform")),
        "m_per_class: several images of each class; random: any images; class_uniform: one image of each "
        "class.",
    )
    batch_size: int | None = option(
        None,
        Integer(1),
        "Images in a batch of the samplers random and class_uniform (default: 32).",
        only_with={"sampler": ("random", "class_uniform")},
    )
    classes_per_batch: int = option(8, Integer(1), "Distinct classes in a batch.", only_with=_WITH_CLASSES)
    samples_per_class: int = option(
        4, Integer(1), "Images of each class in a batch.", only_with=_WITH_CLASSES
    )
    representative_lifetime: int = option(
        0,
        Integer(0),
        "Batches for which the first image of each class stays the same; 0: it always changes.",
        only_with=_WITH_CLASSES,
    )
    augment_representatives: bool = option(
        False,
        Switch(),
        "Augment representatives too, instead of preparing them like test images.",
        only_with={**_WITH_CLASSES, "representative_lifetime": Integer(1)},
    )


@dataclasses.dataclass(frozen=True)
class ImageOptions(Options):
    """The preprocessing of images."""

    preprocessing: str = option(
        "dml",
        Choice(("dml", "cifar", "mnist")),
        "dml: random resized crops; cifar: shifts of small images; mnist: neither, in gray.",
    )
    image_size: ImageSize | None = option(
        None,
        Size(8, 4096),
        "Side of the model's input in pixels, or HEIGHTxWIDTH such as 256x128 (default: the backbone's).",
    )
    test_shorter_side: int | None = option(
        None,
        Integer(8, 8192),
        "Shorter side before the test crop, in pixels (default: smaller side of image_size * 256 / 227).",
        only_with=_WITH_CROPS,
    )
    antialias: bool = option(
        True,
        Switch(),
        "Average over all covered pixels when images are made smaller; off in the paper.",
        only_with=_WITH_CROPS,
    )
    crop_area_min: float = option(
        0.16, _SHARE, "Smallest area of a training crop, as a share of the image.", only_with=_WITH_CROPS
    )
    crop_area_max: float = option(
        1.0, _SHARE, "Largest area of a training crop, as a share of the image.", only_with=_WITH_CROPS
    )
    crop_aspect_min: float = option(
        0.75,
        _ABOVE_ZERO,
        "Smallest width / height of a training crop, relative to that of image_size.",
        only_with=_WITH_CROPS,
    )
    crop_aspect_max: float = option(
        4 / 3,
        _ABOVE_ZERO,
        "Largest width / height of a training crop, relative to that of image_size.",
        only_with=_WITH_CROPS,
    )
    horizontal_flip: bool = option(
        True, Switch(), "Flip half of the training images.", only_with={"preprocessing": ("dml", "cifar")}
    )

    def completed(self, default_size: ImageSize | None = None) -> ImageOptions:
        """Fills in the values that follow from others.

        Args:
            default_size: `image_size` if none is given.

        Raises:
            ValueError: if there is no size at all.
        """
        size = self.image_size or default_size
        if size is None:
            raise ValueError("image_size is None; expected the side of the images in pixels, such as 224")
        shorter_side = None
        if self.preprocessing == "dml":
            shorter_side = self.test_shorter_side or round(min(height_and_width(size)) * _SHORTER_SIDE_RATIO)
        return dataclasses.replace(self, image_size=size, test_shorter_side=shorter_side)
