"""Protocols, folds and repeats as flags, and `--print_config`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import train
from ccp_dml import commands
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.config.class_split import split_classes
from ccp_dml.errors import ConfigError, UserError

ROOT = Path(__file__).parents[2]


def configured(**values) -> ExperimentConfig:
    return ExperimentConfig.from_dict(values)


@pytest.mark.parametrize(
    "values, named",
    [
        ({"protocol": "paper"}, "--protocol=paper: expected one of mlrc, conventional, ablation"),
        ({"fold": "some"}, "--fold=some: expected an integer, at least 1, or all"),
        ({"fold": 0}, "--fold=0: expected an integer, at least 1, or all"),
        ({"fold": True}, "--fold=True: expected an integer, at least 1, or all"),
        ({"num_folds": 1}, "--num_folds=1: expected an integer, at least 2"),
        ({"repeat": 0}, "--repeat=0: expected an integer, at least 1"),
        ({"protocol": "mlrc", "fold": 5}, "--fold=5: expected at most --num_folds=4"),
        ({"protocol": "mlrc", "validation_fraction": 0.2}, "contradicts --protocol=mlrc"),
        ({"protocol": "conventional", "fold": 2}, "--fold=2 contradicts --protocol=conventional"),
        ({"protocol": "conventional", "num_folds": 2}, "--num_folds=2 contradicts --protocol=conventional"),
        (
            {"protocol": "conventional", "validation_fraction": 0.2},
            "--validation_fraction=0.2 contradicts --protocol=conventional",
        ),
        (
            {"protocol": "conventional", "monitor_split": "validation"},
            "--monitor_split=validation contradicts --protocol=conventional",
        ),
        ({"protocol": "ablation", "fold": "all"}, "--fold=all contradicts --protocol=ablation"),
        ({"protocol": "ablation", "num_folds": 4}, "--num_folds=4 contradicts --protocol=ablation"),
        ({"fold": "all", "validation_fraction": 0.2}, "--validation_fraction=0.2 contradicts --fold=all"),
        ({"num_folds": 322, "fold": "all"}, "--num_folds=322 --fold=1: holds out one of the 322"),
        ({"protocol": "mlrc", "closed_set": "shuffled"}, "--protocol=mlrc contradicts --closed_set=shuffled"),
        ({"seed": 2**31 - 2, "repeat": 3}, "--repeat=3 contradicts --seed=2147483646"),
        ({"pca_dim": 129}, "--pca_dim=129: expected at most --embedding_size=128"),
        ({"pca_dim": 0}, "--pca_dim=0: expected an integer, at least 1"),
        ({"warm_up_epochs": -0.5}, "--warm_up_epochs=-0.5: expected a number, at least 0"),
        ({"initial_weights": "/none/a.h5"}, "--initial_weights=/none/a.h5: found nothing there"),
        ({"initial_weights": str(ROOT)}, "found a folder without checkpoints/best"),
    ],
)
def test_validation_names_the_flag(values, named):
    with pytest.raises(UserError) as error:
        configured(**values).validate()
    assert named in str(error.value)


@pytest.mark.parametrize(
    "values, expected",
    [
        ({"protocol": "mlrc"}, {"num_folds": 4, "fold": "all", "monitor_split": "validation"}),
        ({"protocol": "mlrc", "fold": 2, "num_folds": 3}, {"num_folds": 3, "fold": 2}),
        ({"fold": "all"}, {"protocol": None, "num_folds": 4}),
        ({"protocol": "conventional"}, {"validation_fraction": 0.0, "monitor_split": "test", "fold": None}),
        ({"protocol": "ablation"}, {"num_folds": 3, "fold": 1, "monitor_split": "validation"}),
        ({"repeat": 2}, {"validation_fraction": 0.25, "fold": None}),
        ({"repeat": 2, "closed_set": "shuffled"}, {"validation_fraction": None}),
        ({"warm_up_epochs": 0.5}, {"warm_up_learning_rate": 1e-4}),
    ],
)
def test_what_a_protocol_means(values, expected):
    config = configured(**values)
    config.validate()
    complete = config.resolve()
    complete.validate()
    assert complete.resolve() == complete
    found = complete.to_dict()
    assert {name: found[name] for name in expected} == expected
    for member in complete.members:
        member.config.validate()
        assert member.config.resolve() == member.config


def test_the_conventional_protocol_is_warned_about():
    (warning,) = configured(protocol="conventional").warnings()
    assert warning.startswith("--protocol=conventional chooses the best epoch by the test classes")


def test_the_members_of_a_group():
    config = configured(protocol="mlrc", num_folds=3, repeat=2, seed=7, run_dir="DIR", overwrite=True)
    members = config.resolve().members
    assert [str(member) for member in members] == [
        f"fold {fold}, repeat {repeat} (seed {6 + repeat})" for repeat in (1, 2) for fold in (1, 2, 3)
    ]
    assert [member.config.run.run_dir for member in members[:4]] == [
        os.path.join("DIR", f"fold_{fold}", f"repeat_{repeat}")
        for fold, repeat in [(1, 1), (2, 1), (3, 1), (1, 2)]
    ]
    assert not any(member.config.run.overwrite or member.config.is_group for member in members)


def test_repeats_without_folds_keep_the_split_of_a_single_run():
    config = configured(repeat=3, run_dir="DIR").resolve()
    assert config.is_group
    assert [member.config.data for member in config.members] == [configured().resolve().data] * 3
    assert [member.config.run.run_dir for member in config.members] == [
        os.path.join("DIR", "fold_1", f"repeat_{repeat}") for repeat in (1, 2, 3)
    ]


@pytest.mark.parametrize("num_classes, first_of_validation", [(9, 6), (10, 6), (98, 65), (100, 66)])
def test_an_ablation_validates_on_the_last_third(num_classes, first_of_validation):
    config = configured(protocol="ablation", classes_per_batch=2)
    training, validation = split_classes(config.resolve().data, num_classes)
    np.testing.assert_array_equal(training, np.arange(first_of_validation))
    np.testing.assert_array_equal(validation, np.arange(first_of_validation, num_classes))


def test_start_weights_may_differ_by_fold_and_repeat(tmp_path):
    for fold in (1, 2):
        (tmp_path / f"{fold}-1.h5").touch()
    config = configured(fold="all", num_folds=2, initial_weights=f"{tmp_path}/{{fold}}-{{repeat}}.h5")
    config.validate()
    found = [member.config.model.initial_weights for member in config.resolve().members]
    assert found == [f"{tmp_path}/1-1.h5", f"{tmp_path}/2-1.h5"]
    assert config.replace(fold=2).resolve().model.initial_weights == found[1]
    with pytest.raises(ConfigError, match=r"--initial_weights=.*/1-2\.h5: found nothing there"):
        config.replace(repeat=2).validate()


def outcome(*arguments: str) -> int:
    return commands.run(lambda: train.main(arguments))


@pytest.fixture
def printed(capsys, monkeypatch):
    """The lines of --print_config as {"--flag=value": origin}, and everything else that was written."""

    def run(*arguments: str) -> tuple[dict[str, str], str, str]:
        monkeypatch.chdir(ROOT)
        assert outcome(*arguments, "--print_config") == 0
        captured = capsys.readouterr()
        pairs = [line.split(None, 1) for line in captured.out.splitlines() if line.startswith("  --")]
        return dict(pairs), captured.out, captured.err

    return run


def test_print_config_says_where_each_value_comes_from(printed, tmp_path):
    (tmp_path / "inner.cfg").write_text("# comment\n--patience=7\n--seed=1\n")
    (tmp_path / "outer.cfg").write_text("--flagfile=inner.cfg\n\n--seed=2\n--margin=1\n--margin=\n")
    origins, _, errors = printed(
        f"--flagfile={tmp_path}/outer.cfg", "--nohorizontal_flip", "--max_epochs", "3", "-overwrite"
    )
    assert errors == ""
    expected = {
        "--patience=7": f"{tmp_path}/inner.cfg, line 2",
        "--seed=2": f"{tmp_path}/outer.cfg, line 3",
        "--horizontal_flip=false": "command line",
        "--max_epochs=3": "command line",
        "--overwrite=true": "command line",
        "--backbone=efficientnet_lite0": "default",
        "--image_size=224": "derived",
        "--monitor_split=validation": "derived",
    }
    assert {flag: origins[flag] for flag in expected} == expected
    assert not any(flag.startswith("--margin") for flag in origins)


def test_print_config_lists_the_runs(printed):
    _, text, _ = printed("--protocol=mlrc", "--num_folds=2", "--repeat=2", "--run_dir=DIR", "--seed=3")
    assert text.startswith("4 runs, then a report on all of them in DIR:\n")
    assert "  fold 2, repeat 1 (seed 3): DIR/fold_2/repeat_1\n" in text
    _, text, _ = printed("--run_dir=DIR", "--loss=contrastive")
    assert text.startswith("One run in DIR.\n")
    assert "--pool_size" not in text


def test_print_config_needs_no_data_but_says_so(printed):
    origins, _, errors = printed("--dataset=image_folder", "--data_dir=/none")
    assert origins["--data_dir=/none"] == "command line"
    assert errors.startswith("warning: as it is, the command stops with: --data_dir=/none")


def test_print_config_needs_no_tensorflow():
    code = (
        "import sys, train; train.main(['--print_config', '--flagfile=configs/emoji.cfg']); "
        "sys.exit('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("One run in runs/emoji-")


def test_print_config_does_not_hide_a_mistake_in_the_flags(capsys):
    assert outcome("--print_config", "--sed=1") == commands.BAD_INPUT
    assert "did you mean --seed?" in capsys.readouterr().err


def test_what_is_printed_gives_the_same_configuration_again(printed):
    arguments = ["--protocol=mlrc", "--fold=2", "--loss=triplet", "--margin=0.1", "--run_dir=/DIR"]
    origins, _, _ = printed(*arguments)
    assert command_line.parse(list(origins)) == command_line.parse(arguments)
