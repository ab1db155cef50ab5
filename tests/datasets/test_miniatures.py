"""Miniatures of published data sets: prepared, trained on, evaluated and exported by the commands."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.experiment import run as experiment
from ccp_dml.run_directory import RunDirectory
from tests.datasets import miniatures

# The smallest network, on few and small images.
SMALL = (
    "--check_counts=false",
    "--backbone=cifar_resnet",
    "--backbone_weights=random",
    "--backbone_options=stages=1,blocks=1",
    "--image_size=16",
    "--test_shorter_side=18",
    "--embedding_size=8",
    "--classes_per_batch=2",
    "--samples_per_class=2",
    "--proxies_per_class=2",
    "--pool_size=3",
    "--steps_per_epoch=1",
    "--max_epochs=2",
    "--notensorboard",
)
CONFIGS = Path(__file__).parents[2] / "configs"
QUERIES = {"cub": 16, "cars196": 16, "sop": 16, "inshop": 8}
# Data sets with another number of queries, to tell the two evaluations apart.
OTHERS = {"cub": "inshop", "cars196": "inshop", "sop": "inshop", "inshop": "sop"}


def slow(name: str):
    return pytest.param(name, marks=pytest.mark.slow)


def run(main: Callable[[Sequence[str]], object], *arguments: object) -> int:
    """The exit status of a command."""
    return commands.run(lambda: main([str(argument) for argument in arguments]))


def flags_of(name: str, folder: Path) -> list[str]:
    """Writes a data set into `folder`; returns the flags of the paper for it."""
    source = miniatures.WRITERS[name](folder / "Große Bilder")
    flags = [f"--flagfile={CONFIGS / name}.cfg", *SMALL, "--repeat=1"]
    flags += [f"--data_dir={source}", f"--prepared_dir={folder / 'prepared'}"]
    return flags if name == "sop" else [*flags, "--crop_to_box"]


def embeddings_of(saved_model: Path, folder: Path) -> np.ndarray:
    """The embeddings of three image files by a SavedModel."""
    files = sorted(folder.rglob("*.[jJ][pP][gG]"))[:3]
    model = tf.saved_model.load(str(saved_model))
    images = tf.constant([file.read_bytes() for file in files])
    return model.signatures["serve_encoded"](image_bytes=images)["embeddings"].numpy()


@pytest.mark.parametrize("name", [slow("cub"), slow("cars196"), slow("sop"), slow("inshop")])
def test_a_data_set_from_its_published_files_to_saved_models(name, tmp_path: Path, capsys):
    flags = flags_of(name, tmp_path)

    group = RunDirectory(tmp_path / "folds")
    assert run(train.main, *flags, "--num_folds=2", f"--run_dir={group.path}") == 0
    captured = capsys.readouterr()
    assert "--check_counts=false accepts a part of a data set" in captured.err
    results = group.read_results()
    for fold, member in enumerate(results["members"], start=1):
        assert (member["fold"], member["repeat"]) == (fold, 1)
        assert member["test"]["num_queries"] == QUERIES[name]
        # Two of the four training classes validate.
        assert member["validation"]["num_queries"] == 8
        assert RunDirectory(group.path / member["run_dir"]).read_results()["epochs"] == 2
    assert [results[kind]["dimensions"] for kind in ("separate", "concatenated")] == [8, 16]
    assert run(evaluate.main, f"--run_dir={group.path}") == 0
    table = capsys.readouterr().out.strip()
    assert "concatenated 16-d" in table
    assert table in captured.out

    single = RunDirectory(tmp_path / "conventional")
    assert run(train.main, *flags, "--protocol=conventional", f"--run_dir={single.path}") == 0
    assert "chooses the best epoch by the test classes" in capsys.readouterr().err
    results = single.read_results()
    assert results["epochs"] == 2
    assert results["test"]["num_queries"] == QUERIES[name]
    assert results["validation"] is None
    assert run(evaluate.main, f"--run_dir={single.path}") == 0

    other = OTHERS[name]
    images = miniatures.WRITERS[other](tmp_path / "other")
    means = experiment.evaluate(str(single.path), dataset=other, data_dir=str(images))
    assert means["num_queries"] == QUERIES[other] != QUERIES[name]

    for directory, models in ((group, ("fold_1/repeat_1", "fold_2/repeat_1")), (single, (".",))):
        output = tmp_path / "models" / directory.path.name
        assert run(export.main, f"--run_dir={directory.path}", f"--output={output}") == 0
        for model in models:
            embeddings = embeddings_of(output / model, tmp_path / "Große Bilder")
            assert embeddings.shape == (3, 8)
            assert (np.linalg.norm(embeddings, axis=1) <= 1 + 1e-6).all()


def test_the_command_writes_the_same_files_as_the_function(tmp_path: Path, capsys):
    miniatures.main(["sop", str(tmp_path / "command"), "4", "2"])
    miniatures.write_sop(tmp_path / "function", 4, 2)
    contents = [
        {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "command", tmp_path / "function")
    ]
    assert contents[0] == contents[1] != {}
    with pytest.raises(SystemExit):
        miniatures.main(["birds", str(tmp_path)])
    assert "'birds' (choose from 'cub'" in capsys.readouterr().err


def test_an_incomplete_data_set_is_refused_before_any_image_is_read(tmp_path: Path, capsys):
    source = miniatures.write_cub(tmp_path / "birds")
    shutil.rmtree(source / "CUB_200_2011" / "images" / "001.Bird_1")
    flags = [*SMALL[1:], "--dataset=cub", f"--data_dir={source}", f"--prepared_dir={tmp_path / 'prepared'}"]
    assert run(train.main, *flags, f"--run_dir={tmp_path / 'run'}") == commands.BAD_INPUT
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "error: cub: images.txt has 4 classes and 16 images for train; expected 100 classes and 5,864 images"
    )
    assert not (tmp_path / "run").exists()
