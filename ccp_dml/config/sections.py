"""The settings of an experiment, group by group. Every field is a flag of the same name."""

from __future__ import annotations

import dataclasses

from ccp_dml.config.fields import Change, flag
from ccp_dml.config.protocols import ALL_FOLDS, LARGEST_SEED, PROTOCOLS
from ccp_dml.config.values import (
    Choice,
    Integer,
    IntegerOr,
    Integers,
    Number,
    Patterns,
    Steps,
    Switch,
    SwitchedChoice,
    Text,
)

OPTIMIZERS_WITH_MOMENTUM = ("rmsprop", "sgd")
OPTIMIZERS_WITH_MOMENTS = ("adam", "adamax", "adamw", "lamb", "lion", "nadam", "radam")
OPTIMIZERS = tuple(
    sorted((*OPTIMIZERS_WITH_MOMENTUM, *OPTIMIZERS_WITH_MOMENTS, "adadelta", "adafactor", "adagrad", "ftrl"))
)
_NORMALIZATIONS = ("lipschitz", "unit", "l1", "none")
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


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The embedding model."""

    backbone: str = flag("efficientnet_lite0", Text("the name of a backbone"), "Network below the pooling.")
    backbone_weights: str | None = flag(
        None,
        Text("the name of weights, or a file"),
        "imagenet, random, or a file, .npz or .h5 (default: the backbone's).",
    )
    backbone_layer: str | None = flag(
        None, Text("the name of a layer"), "Layer at which the backbone is cut (default: its last)."
    )
    backbone_options: str | None = flag(
        None, Text("name=value,name=value"), "Options of a backbone that has some, see docs/backbones.md."
    )
    freeze_batch_norm: bool | None = flag(
        None, Switch(), "Keep the backbone's batch normalisation as loaded (default: unless random)."
    )
    frozen_layers: tuple[str, ...] = flag(
        (),
        Patterns(),
        "Layers of the backbone that are never trained: regular expressions for the beginning of names.",
    )
    pooling: str = flag(
        "average",
        Choice(("average", "max", "both", "none", "gem")),
        "Global pooling; both adds the two, none keeps all positions, gem is the generalised mean.",
    )
    embedding_size: int = flag(128, Integer(1), "Dimensions of an embedding.")
    initial_weights: str | None = flag(
        None,
        Text("a path"),
        "Weights of the embedding model to start from: a finished run or a file; {fold} and {repeat} in the "
        "path stand for those of the run.",
    )


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """The loss. A flag below must be one that the losses in --loss take; else their defaults hold."""

    loss: str = flag(
        "ccp/contrastive", Text("a path of losses"), "Loss, wrappers first, such as ccp/contrastive."
    )
    normalization: str | None = flag(
        None,
        Choice(_NORMALIZATIONS),
        "Normalisation of embeddings, evaluation included (default: lipschitz; with mdr/... none, or unit).",
    )
    pair_normalization: str | None = flag(
        None, Choice(_NORMALIZATIONS), "Normalisation in the pair term of CCP."
    )
    distance: str | None = flag(
        None, Choice(("euclidean", "squared_euclidean", "cosine")), "Distance between embeddings."
    )
    average: str | None = flag(None, Choice(("active", "all")), "Pairs over which a loss is averaged.")
    miner: str | None = flag(None, Choice(("hard_negatives", "distance_weighted")), "Selection of negatives.")
    mine_pairs: bool | None = flag(None, Switch(), "Mine the pairs of the batch too, in ccp or xbm.")
    proxies_per_class: int | None = flag(None, Integer(0), "Proxies per class (K); 0: none, compare samples.")
    proxy_anchor: bool | None = flag(None, Switch(), "Proxies are the anchors, not the samples.")
    proxy_pairs: bool | None = flag(None, Switch(), "Compare proxies with each other too.")
    proxy_learning_rate_multiplier: float | None = flag(
        None, Number(above=0), "Learning rate of proxies relative to --learning_rate."
    )
    pair_weight: float | None = flag(None, Number(low=0), "Weight of the pairs inside a batch in ccp or xbm.")
    proxy_weight: float | None = flag(None, Number(low=0), "Weight of batch against proxies in CCP.")
    positive_margin: float | None = flag(
        None, Number(), "Distance up to which a positive pair costs nothing."
    )
    negative_margin: float | None = flag(None, Number(), "Distance from which a negative pair costs nothing.")
    margin: float | None = flag(None, Number(), "Margin of a loss that has one.")
    slack: float | None = flag(None, Number(), "Slack of the positive term of original_contrastive.")
    triplets: str | None = flag(None, Choice(("all", "hardest", "semi_hard")), "Triplets of triplet.")
    alpha: float | None = flag(None, Number(above=0), "Steepness for positives, or half the gap of margin.")
    beta: float | None = flag(None, Number(), "Steepness for negatives, or the boundary of margin.")
    threshold: float | None = flag(None, Number(), "Similarity at which multi_similarity bends.")
    per_class: bool | None = flag(None, Switch(), "Learn a boundary for each class in margin.")
    beta_weight: float | None = flag(None, Number(low=0), "Weight of the mean boundary in margin.")
    temperature: float | None = flag(None, Number(above=0), "Temperature of a softmax.")
    scale: float | None = flag(None, Number(above=0), "Factor on the class similarities of soft_triple.")
    center_weight: float | None = flag(
        None, Number(low=0), "Weight of distances between proxies of a class in soft_triple."
    )
    center_normalization: str | None = flag(
        None, Choice(_NORMALIZATIONS), "Normalisation of the proxies in these distances."
    )
    references_per_batch: int | None = flag(
        None, Integer(0), "First samples of a batch that are the references of the others; 0: none."
    )
    weight: float | None = flag(None, Number(low=0), "Factor on the loss, inside ccp on both of its terms.")
    memory_size: int | None = flag(None, Integer(1), "Embeddings in the memory of xbm.")
    memory_weight: float | None = flag(None, Number(low=0), "Weight of batch against memory in xbm.")
    start_step: int | None = flag(None, Integer(0), "First step, from 1, that may use the memory of xbm.")
    exclude_own_copy: bool | None = flag(
        None, Switch(), "In xbm, do not pair an image with its own embeddings in the memory."
    )
    anchors_per_block: int | None = flag(
        None, Integer(0), "In xbm, anchors compared with the memory at a time, to save room; 0: all."
    )
    regularization_weight: float | None = flag(
        None, Number(low=0), "Weight of the distances to the levels in mdr."
    )
    level_weight: float | None = flag(None, Number(low=0), "Weight of the squared levels in mdr.")
    num_levels: int | None = flag(None, Integer(1), "Number of levels in mdr.")
    statistics_momentum: float | None = flag(
        None, Number(low=0, below=1), "Momentum of the running mean and deviation of distances in mdr."
    )
    mixing_alpha: float | None = flag(
        None, Number(above=0), "In ps, both parameters of the beta distribution of the mixing rate."
    )
    mixing_rate: float | None = flag(None, Number(low=0, high=1), "A fixed mixing rate in ps.")
    synthetic_share: float | None = flag(
        None, Number(above=0, high=1), "Synthetic samples in ps, relative to the batch."
    )


@dataclasses.dataclass(frozen=True)
class ProjectionConfig:
    """The alternating projections of CCP, with ccp/... in --loss."""

    pool_size: int = flag(7, Integer(0), "Images per class among which new proxies are chosen (b).")
    ccp_lambda: float = flag(2e-4, Number(low=0), "Weight of the proximal term, from the second instance on.")
    ccp_lambda_decay: float = flag(1.0, Number(above=0), "Factor on --ccp_lambda at every new instance.")
    ccp_reset_rule: str = flag(
        "patience",
        Choice(("patience", "fixed", "staleness")),
        "An instance ends when its score stalls, after --ccp_min_iterations, or when proxies are stale.",
    )
    ccp_patience: int = flag(3, Integer(1), "Validations without improvement that end an instance.")
    ccp_min_iterations: int = flag(1, Integer(1), "Validations that an instance has at least.")
    ccp_max_iterations: int | None = flag(None, Integer(1), "Validations that an instance has at most.")
    ccp_staleness_threshold: float = flag(
        0.5,
        Number(above=0),
        "Distance of proxies from the present embeddings of their images, over their spread.",
    )
    ccp_random_init: bool = flag(False, Switch(), "Start from random proxies instead of embeddings.")
    ccp_normalized_embeddings: bool = flag(False, Switch(), "Choose proxies by distances of unit vectors.")
    ccp_use_representative_proxy: bool = flag(
        True, Switch(), "Choose new proxies; without, proximal term alone."
    )
    ccp_perturb_noise: float = flag(
        0.0, Number(low=0), "Noise on the solution towards which weights are pulled."
    )
    ccp_monitor: str | None = flag(
        None, Text("the name of a metric, or loss"), "Score of an instance (default: --monitor)."
    )
    ccp_stop_at_min: bool | None = flag(None, Switch(), "A lower score is better (default: only of loss).")
    ccp_step_at_batch: bool = flag(
        False, Switch(), "Look after every batch, at its loss, not at validations."
    )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Optimisation and when it ends."""

    steps_per_epoch: int = flag(50, Integer(1), "Steps between two validations.")
    max_epochs: int = flag(
        100, Integer(0), "Epochs at most; 0 evaluates and exports the initial model.", Change.LARGER
    )
    patience: int = flag(15, Integer(0), "Epochs without improvement that end the run; 0: never.")
    monitor: str = flag(
        "map_at_r",
        Text("the name of a metric"),
        "Metric watched: map_at_r, r_precision, precision_at_1, recall_at_K.",
    )
    monitor_split: str | None = flag(
        None,
        Choice(("validation", "test")),
        "Classes on which it is measured; test flatters the result (default: validation; test with "
        "--protocol=conventional).",
    )
    restore_best: bool = flag(True, Switch(), "Evaluate and export the best epoch's weights, not the last's.")
    optimizer: str = flag(
        "adam", Choice(OPTIMIZERS), "Optimizer: those of Keras, lamb, and radam (rectified Adam)."
    )
    learning_rate: float = flag(1e-4, Number(above=0), "Learning rate.")
    momentum: float = flag(0.9, Number(low=0, below=1), "Momentum of sgd and rmsprop.")
    beta_1: float = flag(0.9, Number(low=0, below=1), "Decay of the first moment of adam and its kin.")
    beta_2: float = flag(0.999, Number(low=0, below=1), "Decay of the second moment of adam and its kin.")
    learning_rate_schedule: str = flag(
        "constant", Choice(("constant", "exponential", "plateau")), "How the learning rate changes."
    )
    decay_rate: float = flag(0.96, _EPSILON_TO_ONE, "Factor of the exponential schedule.")
    decay_epochs: float = flag(
        1.0, Number(above=0), "Epochs in which the exponential schedule applies it once."
    )
    plateau_factor: float = flag(0.5, Number(above=0, below=1), "Factor of the plateau schedule.")
    plateau_patience: int = flag(4, Integer(1), "Epochs without improvement before it applies.")
    min_learning_rate: float = flag(1e-6, Number(low=0), "Where the plateau schedule ends.")
    warm_up_epochs: float = flag(
        0.0, Number(low=0), "Epochs at first in which the backbone is frozen, such as 0.5."
    )
    warm_up_learning_rate: float | None = flag(
        None, Number(above=0), "Learning rate of these epochs (default: --learning_rate)."
    )
    weight_decay: float = flag(1e-4, Number(low=0), "Weight decay; spares batch normalisation.")
    ema_attraction: float = flag(
        0.0, Number(low=0), "Pull of the weights to their moving averages; the original's value is 1e-7."
    )
    ema_repulsion: float = flag(
        0.0, Number(low=0), "Push off these averages, per component; the original's value is 1e-5."
    )
    ema_decay: float = flag(0.99, Number(low=0, below=1), "Share of an average that a step keeps.")
    clip_norm: float = flag(10.0, Number(low=0), "Clip gradients by their global norm; 0: do not.")
    clip_value: float = flag(10.0, Number(low=0), "Then clip each component; 0: do not.")
    mixed_precision: str = flag(
        "float32",
        SwitchedChoice(("float32", "mixed_float16", "mixed_bfloat16"), on="mixed_bfloat16", off="float32"),
        "Precision of the layers; alone it means mixed_bfloat16.",
    )
    jit_compile: bool = flag(False, Switch(), "Compile the training step with XLA.")
    nan_policy: str = flag(
        "stop",
        Choice(("stop", "skip")),
        "A loss or gradient that is not finite ends the run, or leaves the step out (10 in a row end it).",
        Change.FREE,
    )
    deterministic: bool | None = flag(
        None, Switch(), "Same bits from the same seed, flags and computer (default: where there is no GPU)."
    )
    chunk_size: int | None = flag(
        None, Integer(1), "Steps that run inside one call of TensorFlow (default: the trainer's choice)."
    )


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """Retrieval metrics."""

    recall_at: tuple[int, ...] = flag((1, 2, 4, 8), Integers(), "k of the reported R@k.")
    precision_at: tuple[int, ...] = flag((), Integers(), "k of the reported P@k.")
    map_at: tuple[int, ...] = flag((), Integers(), "k of the reported MAP@k.")
    track_test: int = flag(
        0,
        Integer(0),
        "Score the test classes every so many epochs, for curves; decides nothing. 0: never.",
        Change.FREE,
    )
    test_crops: int = flag(
        0, Integer(0, 256), "Crops of a test image whose embeddings are averaged with its own; 0: none."
    )
    pca_dim: int | None = flag(
        None,
        Integer(1),
        "Reduce the embeddings of the final test to so many dimensions, by a PCA of training embeddings.",
    )
    validation_cache_mb: float = flag(
        256.0,
        Number(low=0),
        "Keep the prepared validation images in memory if they take no more than so many megabytes.",
        Change.FREE,
    )
    evaluation_batch_size: int = flag(128, Integer(1), "Images embedded at once in evaluation.", Change.FREE)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The run and what it leaves behind."""

    run_dir: str | None = flag(
        None, _FOLDER, "Folder of the run (default: runs/<config>-<UTC time>).", Change.FREE
    )
    overwrite: bool = flag(False, Switch(), "Replace the run that --run_dir holds.", Change.FREE)
    seed: int = flag(0, Integer(0, LARGEST_SEED), "Seed of everything random.")
    repeat: int = flag(1, Integer(1), "Runs of each fold, with the seeds seed, seed + 1, ….")
    checkpoint_keep: int = flag(
        2, Integer(1), "Last checkpoints kept, beside that of the best epoch.", Change.FREE
    )
    checkpoint_steps: int = flag(
        0, Integer(0), "Save every so many steps, besides after every epoch; 0: do not.", Change.FREE
    )
    checkpoint_minutes: float = flag(
        10.0, Number(low=0), "Save when so many minutes have passed since; 0: do not.", Change.FREE
    )
    tensorboard: bool = flag(True, Switch(), "Write TensorBoard events.", Change.FREE)
    tensorboard_panels: int = flag(
        8, Integer(0), "Validation queries shown with their neighbours; 0: none.", Change.FREE
    )
    tensorboard_histograms: bool = flag(
        True, Switch(), "Histograms of distances, once per epoch.", Change.FREE
    )
    tensorboard_projector: bool = flag(
        True, Switch(), "Embedding projector with sprites, at the end.", Change.FREE
    )
    profile: tuple[int, int] | None = flag(
        None,
        Steps(),
        "START:STOP: trace the chunks of steps in between for TensorBoard's profiler.",
        Change.FREE,
    )
