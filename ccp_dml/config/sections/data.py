"""The flags of the images, and of how batches are made of them."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import Change, flag
from ccp_dml.config.values import Choice, Integer, IntegerOr, Number, Switch, SwitchedChoice, Text

# After A Metric Learning Reality Check (Musgrave et al. 2020), arXiv 2003.08505.
MLRC = "mlrc"
CONVENTIONAL = "conventional"
ABLATION = "ablation"
PROTOCOLS = (MLRC, CONVENTIONAL, ABLATION)
ALL_FOLDS = "all"

_FOLDER = Text("a folder")
_EPSILON_TO_ONE = Number(above=0, high=1)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Images and how batches are made of them."""

    dataset: str = flag(
        "emoji", Text("the name of a data set"), "Data set; image_folder reads your own images."
    )
    data_dir: str | None = flag(
        None,
        _FOLDER,
        "Where the source images are, or their archive; the built-in set needs none.",
        Change.FREE,
    )
    download: bool = flag(
        False,
        Switch(),
        "Without --data_dir, download the source if it may be had without asking.",
        Change.FREE,
    )
    check_counts: bool = flag(
        True, Switch(), "A published data set must have its published numbers of classes and images."
    )
    skip_bad_images: bool = flag(
        False, Switch(), "Leave out images that cannot be used and name the classes that shrank; else stop."
    )
    crop_to_box: bool = flag(
        False, Switch(), "Crop images to the bounding boxes that come with cub, cars196 and inshop."
    )
    prepared_dir: str | None = flag(
        None, _FOLDER, "Where prepared data goes (default: TFDS_DATA_DIR, else a cache folder).", Change.FREE
    )
    prepared_shorter_side: int | None = flag(
        None, Integer(1), "Prepare and read a copy with images of at most this shorter side (default: none)."
    )
    train_fraction: float = flag(
        0.5, Number(above=0, below=1), "Training share of the classes of an image_folder without manifest."
    )
    protocol: str | None = flag(
        None,
        Choice(PROTOCOLS),
        "mlrc: class folds; conventional: train on all, monitor the test classes; ablation: validate on the "
        "last third (default: hold out --validation_fraction).",
    )
    validation_fraction: float | None = flag(
        None,
        Number(low=0, below=1),
        "Held-out share of the training classes (default: 0.25; 0 if --monitor_split=test).",
    )
    num_folds: int | None = flag(
        None, Integer(2), "Contiguous parts of the training classes (default: 4 with folds)."
    )
    fold: int | str | None = flag(
        None,
        IntegerOr(1, ALL_FOLDS),
        "Part of --num_folds to validate on, from 1, or all in turn; part 1 holds the last classes "
        "(default: all with --protocol=mlrc).",
    )
    closed_set: str = flag(
        "off",
        SwitchedChoice(("off", "shuffled", "in_order"), on="shuffled", off="off"),
        "Train, validate and test on 65, 15 and 20 % of the images of each class; alone it means shuffled.",
    )
    label_noise: float = flag(
        0.0, Number(low=0, below=1), "Share of the training images that get the label of another class."
    )
    data_seed: int = flag(
        0, Integer(0), "Seed of --closed_set and --label_noise, the same for runs of any --seed."
    )
    sampler: str = flag(
        "m_per_class",
        Choice(("m_per_class", "random", "class_uniform")),
        "Batches of a few images of each class, of any images, or of random classes.",
    )
    batch_size: int | None = flag(
        None, Integer(1), "Images in a batch of another sampler than m_per_class (default: 32)."
    )
    classes_per_batch: int = flag(8, Integer(1), "Distinct classes in a batch.")
    samples_per_class: int = flag(4, Integer(1), "Images of each class in a batch.")
    representative_lifetime: int = flag(
        0, Integer(0), "Batches for which the first image of each class stays the same; 0: it always changes."
    )
    augment_representatives: bool = flag(
        False, Switch(), "Augment these first images too, instead of preparing them like test images."
    )
    preprocessing: str = flag(
        "dml",
        Choice(("dml", "cifar", "mnist")),
        "Random resized crops; shifts of small images that are not resized; or neither, in gray.",
    )
    image_size: int | None = flag(
        None, Integer(8, 4096), "Side of the images that the model sees, in pixels (default: the backbone's)."
    )
    test_shorter_side: int | None = flag(
        None, Integer(8, 8192), "Shorter side before the test crop (default: image_size * 256 / 227)."
    )
    crop_area_min: float = flag(0.16, _EPSILON_TO_ONE, "Smallest area of a training crop, as a share.")
    crop_area_max: float = flag(1.0, _EPSILON_TO_ONE, "Largest area of a training crop, as a share.")
    crop_aspect_min: float = flag(0.75, Number(above=0), "Smallest width / height of a training crop.")
    crop_aspect_max: float = flag(4 / 3, Number(above=0), "Largest width / height of a training crop.")
    horizontal_flip: bool = flag(True, Switch(), "Flip half of the training images.")
