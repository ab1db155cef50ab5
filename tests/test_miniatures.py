"""Published data sets, in miniature: prepared, trained on, evaluated and exported by a user's commands."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import tensorflow as tf

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.run_directory import RunDirectory
from tests import miniatures

FLAGS = (
    "--check_counts=false",
    "--backbone=cifar_resnet",
    "--image_size=16",
    "--embedding_size=8",
    "--classes_per_batch=2",
    "--samples_per_class=2",
    "--proxies_per_class=2",
    "--pool_size=3",
    "--fold=1",
    "--num_folds=2",
    "--steps_per_epoch=1",
    "--max_epochs=2",
    "--notensorboard",
)
QUERIES = {"cub": 16, "cars196": 16, "sop": 16, "inshop": 8}


def slow(name: str):
    return pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", ["cub", slow("cars196"), slow("sop"), slow("inshop")])
def test_a_data_set_from_its_published_files_to_a_saved_model(name, tmp_path: Path, capsys):
    source = miniatures.WRITERS[name](tmp_path / "Große Bilder")
    run = RunDirectory(tmp_path / "run")
    flags = [*FLAGS, f"--dataset={name}", f"--data_dir={source}", f"--prepared_dir={tmp_path / 'prepared'}"]
    if name != "sop":
        flags.append("--crop_to_box")
    assert commands.run(lambda: train.main([*flags, f"--run_dir={run.path}"])) == 0
    results = run.read_results()
    assert results["epochs"] == 2
    assert results["test"]["num_queries"] == QUERIES[name]
    assert results["validation"]["num_queries"] == 8
    assert "--check_counts=false takes a part of a data set for the whole" in capsys.readouterr().err
    assert commands.run(lambda: evaluate.main([f"--run_dir={run.path}"])) == 0
    assert commands.run(lambda: export.main([f"--run_dir={run.path}", f"--output={tmp_path / 'model'}"])) == 0
    model = tf.saved_model.load(str(tmp_path / "model"))
    images = tf.constant([file.read_bytes() for file in sorted(source.rglob("*.[jJ][pP][gG]"))[:3]])
    assert model.signatures["serve_encoded"](image_bytes=images)["embeddings"].shape == (3, 8)


def test_a_set_that_is_short_is_refused_before_any_image_is_read(tmp_path: Path, capsys):
    source = miniatures.write_cub(tmp_path / "birds")
    shutil.rmtree(source / "CUB_200_2011" / "images" / "001.Bird_1")
    flags = [*FLAGS[1:], "--dataset=cub", f"--data_dir={source}", f"--prepared_dir={tmp_path / 'prepared'}"]
    assert commands.run(lambda: train.main([*flags, f"--run_dir={tmp_path / 'run'}"])) == commands.BAD_INPUT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "error: cub: images.txt has 4 classes and 16 images for train; expected 100 classes and 5,864 images"
    )
    assert not (tmp_path / "run").exists()
