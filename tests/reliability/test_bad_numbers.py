"""Messages about runs that diverge or do not learn."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import train
from ccp_dml import commands
from tests.data.image_folder import SMALL_RUN, write_classes, write_image

RUN = (
    *(flag for flag in SMALL_RUN if not flag.startswith(("--proxies", "--pool"))),
    "--loss=contrastive",
    "--proxies_per_class=0",
    "--image_size=16",
    "--validation_fraction=0.4",
    "--steps_per_epoch=2",
    "--max_epochs=2",
    "--notensorboard",
)


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple[str, ...]:
    root = tmp_path_factory.mktemp("images")
    return (*RUN, f"--data_dir={write_classes(root / 'source', 12)}", f"--prepared_dir={root / 'prepared'}")


def outcome(path: Path, *flags: str) -> int:
    return commands.run(lambda: train.main([*flags, f"--run_dir={path}"]))


def test_a_run_that_diverges_is_stopped(flags, tmp_path, capsys):
    assert outcome(tmp_path / "run", *flags, "--learning_rate=1e30") == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    beginning = "error: --learning_rate=1e+30 --nan_policy=stop: Not finite at step 2: "
    # The embeddings are 0 or NaN, as the processor computes batch statistics of numbers that overflow.
    assert re.match(rf"{re.escape(beginning)}(embedding_norm, )?gradient_norm.* \(embedding_norm ", line)
    assert line.endswith("there is no checkpoint. Try a lower learning rate, or to skip such steps.")


@pytest.mark.slow
def test_skipped_steps_are_counted_and_a_collapse_is_reported_once(tmp_path, capsys):
    """All images are the same, and the sum of two margins overflows."""
    for label in range(12):
        for index in range(3):
            write_image(tmp_path / "source" / f"class {label:02d}" / f"{index}.png", (128, 128, 128))
    flags = [*RUN, f"--data_dir={tmp_path / 'source'}", f"--prepared_dir={tmp_path / 'prepared'}"]
    assert outcome(tmp_path / "run", *flags, "--negative_margin=3e38", "--nan_policy=skip") == 0
    collapsed = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    assert collapsed == [
        "warning: epoch 1: the embeddings have collapsed, their mean cosine is 1.000000; "
        "try a lower learning rate, a larger margin, or easier negatives"
    ]
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        assert [row["skipped_steps"] for row in csv.DictReader(file)] == ["2", "4"]


def test_a_loss_without_active_pairs_is_reported_once(flags, tmp_path, capsys):
    assert outcome(tmp_path / "run", *flags, "--positive_margin=2", "--negative_margin=1e-6") == 0
    inactive = [line for line in capsys.readouterr().err.splitlines() if "inactive" in line]
    assert inactive == [
        "warning: epoch 1: the loss was inactive, no pair had a gradient; "
        "try a larger margin, more classes per batch, or a miner"
    ]
