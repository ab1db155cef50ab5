"""Writes the flagfiles of the paper's methods from the tables of hyper-parameters below.

    python -m configs.generate

`configs/<dataset>/<method>.cfg` is a row of the paper's tables, and `configs/<dataset>.cfg` is C2-CCP.
`configs/conventional/<backbone>/<dataset>/<method>.cfg` has the values of the authors' code for one model of
512 dimensions. The files in `configs/common` are written by hand.
"""

from __future__ import annotations

import json
import os.path
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ccp_dml.evaluation.paper import published
from studies.training_runs import COLUMNS, of_name, spread

FOLDER = Path(__file__).parent
STUDIES = FOLDER.parent / "studies"
_INDENT = "#" + " " * 11


class Method(NamedTuple):
    """A method: its name in the paper without the sizes -S and -L, its `--loss`, and a description."""

    name: str
    loss: str
    description: str


class Dataset(NamedTuple):
    """A data set: its name, its split in a sentence, and `--steps_per_epoch` of the paper."""

    title: str
    split: str
    steps_per_epoch: int


METHODS = {
    "c1": Method(
        "C1", "original_contrastive", "the contrastive loss with one margin, on cosine similarities"
    ),
    "c1_xbm": Method("C1-XBM", "xbm/original_contrastive", "a cross-batch memory around C1"),
    "c1_ccp": Method("C1-CCP", "ccp/original_contrastive", "chance-constrained proxies around C1"),
    "c2": Method("C2", "contrastive", "the contrastive loss with a margin for each kind of pair"),
    "c2_xbm": Method("C2-XBM", "xbm/contrastive", "a cross-batch memory around the contrastive loss"),
    "c2_ccp": Method("C2-CCP", "ccp/contrastive", "chance-constrained proxies around the contrastive loss"),
    "triplet": Method("Triplet", "triplet", "the triplet loss over all triplets of a batch"),
    "triplet_ccp": Method("Triplet-CCP", "ccp/triplet", "chance-constrained proxies around the triplet loss"),
    "ms": Method("MS", "multi_similarity", "the multi-similarity loss"),
    "ms_ccp": Method("MS-CCP", "ccp/multi_similarity", "chance-constrained proxies around multi-similarity"),
    "proxy_anchor": Method("ProxyAnchor", "proxy_anchor", "one trained proxy per class as the anchor"),
    "proxy_nca": Method("ProxyNCA++", "proxy_nca", "a softmax over one trained proxy per class"),
    "soft_triple": Method("SoftTriple", "soft_triple", "a softmax over several trained proxies per class"),
}
MAIN_METHOD = "c2_ccp"
TRAINED_PROXIES = ("proxy_anchor", "proxy_nca", "soft_triple")
TRAINED_PROXIES_SETTING = ["--classes_per_batch=32", "--samples_per_class=1", "--warm_up_epochs=1"]

DATASETS = {
    "cub": Dataset(
        "CUB-200-2011", "The first 100 classes train (5,864 images), the last 100 test (5,924).", 25
    ),
    "cars196": Dataset("Cars196", "The first 98 classes train (8,054 images), the last 98 test (8,131).", 25),
    "inshop": Dataset(
        "In-shop",
        "3,997 classes train (25,882 images); 3,985 test, 14,218 queries against 12,612 gallery images.",
        250,
    ),
    "sop": Dataset(
        "Stanford Online Products",
        "The 11,318 official training classes train (59,551 images), the other 11,316 test (60,502).",
        250,
    ),
}
LARGE = ("inshop", "sop")

# Values by data set; a data set that is not named takes those of CUB.
LOSS_FLAGS: dict[str, Mapping[str, str]] = {
    "original_contrastive": {"cub": "--margin=0.5"},
    "contrastive": {
        "cub": "--positive_margin=0 --negative_margin=0.3841",
        "cars196": "--positive_margin=0.2652 --negative_margin=0.5409",
        "inshop": "--positive_margin=0.2858 --negative_margin=0.5130",
        "sop": "--positive_margin=0.2858 --negative_margin=0.5130",
    },
    "triplet": {
        "cub": "--margin=0.0961",
        "cars196": "--margin=0.1190",
        "inshop": "--margin=0.0451",
        "sop": "--margin=0.0451",
    },
    "multi_similarity": {
        "cub": "--alpha=2 --beta=40 --threshold=0.5",
        "cars196": "--alpha=14.35 --beta=75.83 --threshold=0.66",
        "inshop": "--alpha=8.49 --beta=57.38 --threshold=0.41",
    },
    "proxy_anchor": {"cub": "--margin=0.1 --alpha=32"},
    "proxy_nca": {"cub": "--temperature=0.11"},
    "soft_triple": {
        "cub": "--scale=20 --temperature=0.1 --center_weight=0.2 --margin=0.01",
        "cars196": "--scale=17.69 --temperature=19.18 --center_weight=0.0669 --margin=0.3588",
        "sop": "--scale=100 --temperature=47.9 --center_weight=0.2 --margin=0.3145",
    },
}
# The authors' code has no values for SoftTriple with 512 dimensions.
CONVENTIONAL_LOSS_FLAGS = LOSS_FLAGS | {
    "contrastive": {"cub": "--positive_margin=0 --negative_margin=1"},
    "triplet": {"cub": "--margin=0.2"},
    "multi_similarity": {"cub": "--alpha=2 --beta=40 --threshold=0.5"},
}
# Lines before these flags, on every data set.
FIRST_LINES = {
    "proxy_nca": ["# The text says 0.1; the code that made the results has 0.11."],
    "soft_triple": ["# The number of proxies is the default of the authors' code.", "--proxies_per_class=10"],
}
# K proxies out of b candidates.
PROXIES = {"cub": (8, 12), "inshop": (4, 7), "sop": (4, 7), "emoji": (4, 5)}
CCP_OPTIONS = ["--ccp_lambda=2e-4", "--ccp_reset_rule=patience", "--ccp_patience=3"]
CCP_OPTIONS_EMOJI = [
    "--ccp_lambda=2e-4",
    "# At this learning rate the embedding leaves its proxies behind within an epoch (docs/results.md), so a",
    "# problem instance is one epoch. At its learning rate of 1e-5 the paper has --ccp_reset_rule=patience.",
    "--ccp_reset_rule=fixed",
    "--ccp_min_iterations=1",
]
# Size of the cross-batch memory in batches, and the step from which it is used.
MEMORY = {"cub": 25, "inshop": 400, "sop": 1400}
MEMORY_START = ["--start_step=1000"]
MEMORY_START_EMOJI = [
    "# The learning rate is ten times the paper's, so the memory is used from step 100 on, not 1,000.",
    "--start_step=100",
]


class Backbone(NamedTuple):
    """A backbone of the conventional protocol: its name, and the values of the authors' code."""

    title: str
    classes_per_batch: int
    weight_decay: str
    patience_of_large_sets: int
    memory: Mapping[str, int]


BACKBONES = {
    "bn_inception": Backbone("BN-Inception", 32, "1e-4", 15, MEMORY | {"cub": 50}),
    "resnet50": Backbone("ResNet50", 28, "4e-4", 10, MEMORY),
}

# Cost of a run in the paper: thousands of steps to converge on SOP and In-shop, and milliseconds per batch of
# 32 images on an RTX 2080 Ti.
STEPS = {
    "C2": (62, 114),
    "C2-XBM": (81, 93),
    "C2-CCP": (69, 127),
    "MS": (67, 98),
    "MS-CCP": (91, 131),
    "Triplet": (93, 73),
    "Triplet-CCP": (124, 115),
    "ProxyAnchor": (54, 87),
    "ProxyNCA++": (88, 103),
    "SoftTriple": (48, 82),
}
MILLISECONDS = {"C2": 97, "C2-CCP": 105}
# Methods that were trained to convergence on emoji, and their names in that study.
CONVERGED = {"c2": "compare/emoji_contrastive", "c2_ccp": "compare/emoji"}


def main() -> None:
    """Writes all files."""
    for name, text in flagfiles().items():
        (FOLDER / name).parent.mkdir(parents=True, exist_ok=True)
        (FOLDER / name).write_text(text, encoding="utf-8")


def flagfiles() -> dict[str, str]:
    """The text of every generated file by its path in `configs`."""
    found = {}
    for dataset in ("emoji", *DATASETS):
        row = emoji_row if dataset == "emoji" else paper_row
        found[f"{dataset}.cfg"] = row(dataset, MAIN_METHOD, f"{dataset}.cfg")
        for method in METHODS:
            name = f"{dataset}/{method}.cfg"
            found[name] = row(dataset, method, name)
    for backbone in BACKBONES:
        for dataset in DATASETS:
            for method in METHODS:
                name = f"conventional/{backbone}/{dataset}/{method}.cfg"
                found[name] = conventional_row(backbone, dataset, method, name)
    return found


def paper_row(dataset: str, method: str, name: str) -> str:
    """A row of the paper's tables."""
    protocol = (
        "The training classes are cut into 4 contiguous parts; each validates in turn, three times; "
        "--fold=1 --repeat=1 is one of the 12 runs."
    )
    reported = cost(dataset, METHODS[method].name)
    header = {
        "Protocol": f"{DATASETS[dataset].split} {protocol}",
        "Source": "Deep Metric Learning with Chance Constraints (arXiv 2209.09060), supplement, section 2.",
        "Expected": f"{paper_scores(dataset, method, 128)} (mean of the 4 folds, 128-d),\n"
        f"{paper_scores(dataset, method, 512)} (the 4 embeddings concatenated, 512-d) in the paper;\n"
        "docs/reproducing.md says what was measured with this library.",
        "Cost": f"12 runs; of each, in the paper (RTX 2080 Ti): {reported}.",
        "Command": f"python train.py --flagfile=configs/{name} --data_dir=DIR",
    }
    setting = [
        include("paper", name),
        f"--dataset={dataset}",
        f"--steps_per_epoch={DATASETS[dataset].steps_per_epoch}",
        *(TRAINED_PROXIES_SETTING if method in TRAINED_PROXIES else []),
    ]
    ccp = [*proxy_flags(dataset), *CCP_OPTIONS]
    memory = [*memory_flags(of_dataset(MEMORY, dataset), 32), *MEMORY_START]
    loss = loss_flags(dataset, method, LOSS_FLAGS, ccp, memory)
    return flagfile(f"{title(method, dataset)}: {METHODS[method].description}", header, setting, loss)


def emoji_row(dataset: str, method: str, name: str) -> str:
    """A method on the built-in data set."""
    header = {
        "Protocol": "The first half of the 645 classes in code-point order trains, a quarter of these held "
        "out for validation; the second half tests. The epoch with the best validation MAP@R is kept.",
        "Source": "The built-in data set (datasets/emoji); no download. The method is the paper's, "
        "the setting ours.",
        "Expected": emoji_scores(method),
        "Cost": "About 5 minutes on 2 cores for 30 epochs (measured for configs/emoji.cfg).",
        "Command": f"python train.py --flagfile=configs/{name}",
    }
    setting = [include("emoji", name), *(TRAINED_PROXIES_SETTING if method in TRAINED_PROXIES else [])]
    ccp = [*proxy_flags(dataset), *CCP_OPTIONS_EMOJI]
    memory = [*memory_flags(of_dataset(MEMORY, dataset), 32), *MEMORY_START_EMOJI]
    loss = loss_flags(dataset, method, LOSS_FLAGS, ccp, memory)
    return flagfile(f"{title(method, dataset)}: {METHODS[method].description}", header, setting, loss)


def conventional_row(backbone: str, dataset: str, method: str, name: str) -> str:
    """A method in the conventional protocol."""
    network, large = BACKBONES[backbone], dataset in LARGE
    classes, samples = network.classes_per_batch, 4
    batch_size = classes * samples
    if method in TRAINED_PROXIES:
        # No more classes than there are to train on; the authors' code has 96 for the 98 of Cars196.
        classes, samples = min(batch_size, {"cub": 100, "cars196": 96}.get(dataset, batch_size)), 1
    configuration = f"{backbone.replace('_', '')}_{'large' if large else 'small'}"
    header = {
        "Protocol": "One model of 512 dimensions on all training classes, three times. The test classes "
        "choose the best epoch and the learning rate, so the score flatters the model (docs/protocols.md).",
        "Source": f"The authors' code, github yetigurbuz/ccp-dml, configuration {configuration}.",
        "Expected": "Not known; tables 1 and 2 of the paper's supplement are of another protocol.",
        "Cost": f"Not known; 3 runs with batches of {classes * samples} images.",
        "Command": f"python train.py --flagfile=configs/{name} --data_dir=DIR",
    }
    setting = [
        include("conventional", name),
        f"--backbone={backbone}",
        f"--dataset={dataset}",
        f"--steps_per_epoch={DATASETS[dataset].steps_per_epoch}",
        f"--classes_per_batch={classes}",
        f"--samples_per_class={samples}",
        f"--learning_rate={'1e-4' if large else '1e-5'}",
        f"--plateau_patience={3 if large else 4}",
        f"--patience={network.patience_of_large_sets if large else 15}",
        f"--weight_decay={network.weight_decay}",
    ]
    ccp = [*proxy_flags(dataset), *CCP_OPTIONS]
    surplus = ", more than there are to train on" if large else ""
    memory = [*memory_flags(of_dataset(network.memory, dataset), batch_size, surplus), *MEMORY_START]
    loss = loss_flags(dataset, method, CONVENTIONAL_LOSS_FLAGS, ccp, memory)
    return flagfile(
        f"{title(method, dataset)} with {network.title}, conventional protocol", header, setting, loss
    )


def loss_flags(
    dataset: str, method: str, table: Mapping[str, Mapping[str, str]], ccp: list[str], memory: list[str]
) -> Iterator[str]:
    """The loss and its hyper-parameters, a line each; `ccp` and `memory` if the method has them."""
    *wrappers, base = METHODS[method].loss.split("/")
    yield f"--loss={METHODS[method].loss}"
    yield from FIRST_LINES.get(base, [])
    yield from of_dataset(table[base], dataset).split()
    if method in TRAINED_PROXIES:
        yield "--proxy_learning_rate_multiplier=100"
    if "ccp" in wrappers:
        yield from ccp
    if "xbm" in wrappers:
        yield from memory


def proxy_flags(dataset: str) -> list[str]:
    """The proxies of CCP."""
    proxies, candidates = of_dataset(PROXIES, dataset)
    return [
        f"# Of {candidates} candidates per class {proxies} become proxies.",
        f"--proxies_per_class={proxies}",
        f"--pool_size={candidates}",
        "--pair_weight=0.1",
        "--proxy_weight=1",
    ]


def memory_flags(batches: int, batch_size: int, remark: str = "") -> list[str]:
    """The size of the cross-batch memory."""
    comment = f"# {batches:,} batches of {batch_size} images{remark}."
    return ["--pair_weight=1", "--memory_weight=1", comment, f"--memory_size={batches * batch_size}"]


def flagfile(what: str, header: Mapping[str, str], setting: list[str], loss: Iterator[str]) -> str:
    """The text of a flagfile."""
    lines = [f"# {what}.", "#"]
    for label, text in header.items():
        first, *rest = text.split("\n")
        lines.append(_wrapped(f"# {label + ':':9} ", first))
        lines += [_wrapped(_INDENT, line) for line in rest]
    return "\n".join([*lines, *setting, "", *loss, ""])


def include(common: str, name: str) -> str:
    """The line that includes a common file in the file `name`."""
    return "--flagfile=" + os.path.relpath(f"common/{common}.cfg", os.path.dirname(name) or ".")


def title(method: str, dataset: str) -> str:
    """Method and data set as a reader knows them."""
    return f"{METHODS[method].name} on {DATASETS[dataset].title if dataset in DATASETS else dataset}"


def of_dataset(table: Mapping[str, Any], dataset: str) -> Any:
    """The entry of a data set, or that of CUB."""
    return table.get(dataset, table["cub"])


def cost(dataset: str, name: str) -> str:
    """Steps and time of one run, as far as the paper reports them, for a method by its name in the paper."""
    name = name.removesuffix("-S").removesuffix("-L")
    steps = dict(zip(("sop", "inshop"), STEPS.get(name, ()))).get(dataset)
    found = [f"{steps}K steps"] if steps else []
    found += [f"{MILLISECONDS[name]} ms each"] if name in MILLISECONDS else []
    return ", ".join(found) or "not reported"


def paper_scores(dataset: str, method: str, dimensions: int) -> str:
    """The scores of a row of the paper's tables, in percent."""
    row = published(dataset, METHODS[method].loss, dimensions)
    assert row is not None
    return ", ".join(f"{label} {100 * row[1][metric]:.2f}" for metric, label in COLUMNS.items())


def emoji_scores(method: str) -> str:
    """The test scores that the studies measured on emoji, in percent."""
    at_equal_steps, at_convergence = (
        json.loads((STUDIES / file).read_text(encoding="utf-8"))
        for file in ("methods/results.json", "emoji/results.json")
    )
    runs, setting = of_name(at_equal_steps, method), "with --max_epochs=24 --patience=0"
    frozen = ", ".join(f"{runs[0]['frozen'][name]:.1f}" for name in COLUMNS)
    if method in CONVERGED:
        runs, setting = (
            of_name(at_convergence, CONVERGED[method]),
            "at convergence, that is with --max_epochs=80",
        )
    tested = {name: spread([run["test"][name] for run in runs]) for name in COLUMNS}
    scores = ", ".join(f"{label} {tested[name]}" for name, label in COLUMNS.items())
    return f"Test {scores} in %, three seeds, {setting} (docs/results.md); frozen features have {frozen}."


def _wrapped(begin: str, text: str) -> str:
    return textwrap.fill(text, 118, initial_indent=begin, subsequent_indent=_INDENT, break_on_hyphens=False)


if __name__ == "__main__":
    main()
