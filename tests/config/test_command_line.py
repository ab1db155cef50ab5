"""Flags, help and `--print_config`."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path

import pytest

import train
from ccp_dml import commands
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.errors import ConfigError
from tests import ROOT

CLASSES = "--classes_per_batch=6\n--samples_per_class=2\n"


def outcome(*arguments: str) -> int:
    return commands.run(lambda: train.main(arguments))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes flagfiles, given as name=content, into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_files(**contents: str) -> None:
        for name, content in contents.items():
            (tmp_path / f"{name}.cfg").write_text(content)

    return write_files


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["--seed=3"], {"seed": 3}),
        (["--seed", "3"], {"seed": 3}),
        (["-seed=3"], {"seed": 3}),
        (["--seed=1", "--seed=3"], {"seed": 3}),
        (["--data_dir=a=b"], {"data_dir": "a=b"}),
        (["--nohorizontal_flip", "--overwrite"], {"horizontal_flip": False, "overwrite": True}),
        (["--horizontal_flip=no", "--overwrite=1"], {"horizontal_flip": False, "overwrite": True}),
        (["--mixed_precision"], {"mixed_precision": "mixed_bfloat16"}),
        (["--nomixed_precision"], {"mixed_precision": "float32"}),
        (["--closed_set"], {"closed_set": "shuffled"}),
        (["--margin=1", "--margin="], {"margin": None}),
        (["--recall_at="], {"recall_at": ()}),
    ],
)
def test_every_way_to_write_a_flag(arguments, expected):
    assert command_line.read(arguments) == ExperimentConfig.from_dict(expected)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--seed=abc"], "--seed=abc: expected an integer, at least 0"),
        (["--seed=abc", "--seed=1"], "--seed=abc: expected an integer, at least 0"),
        (["--seed", "-1"], "--seed=-1: expected an integer"),
        (["--seed"], "--seed: there is no value; expected --seed=value"),
        (["--lerning_rate=1"], "--lerning_rate: unknown flag; did you mean --learning_rate?"),
        (["--zzz"], "--zzz: unknown flag; --help lists all flags"),
        (["emoji"], "emoji: unexpected argument; expected --flag=value"),
        (["--", "emoji"], "--: unexpected argument; expected --flag=value"),
        (["--overwrite=maybe"], "--overwrite=maybe: expected true or false"),
        (["--nooverwrite=true"], "--nooverwrite=true: unexpected value; expected --nooverwrite"),
        (["--noseed"], "--noseed: unknown flag"),
        (["--mixed_precision=half"], "--mixed_precision=half: expected one of float32"),
        (["--recall_at=1;2"], "--recall_at=1;2: expected increasing positive integers"),
        (["--flagfile=none.cfg"], "--flagfile=none.cfg: cannot be read: No such file"),
        (["--flagfile"], "--flagfile: expected a file name"),
    ],
)
def test_a_mistake_is_an_error_that_names_the_argument(arguments, message):
    with pytest.raises(ConfigError) as error:
        command_line.read(arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "file, flags",
    [
        (CLASSES, ["--sampler=random", "--batch_size=64"]),
        (CLASSES, ["--sampler", "class_uniform"]),
        ("--classes_per_batch\n6", ["-sampler=random"]),
        ("--representative_lifetime=3\n--augment_representatives", ["--sampler=random"]),
        ("--sampler=random\n--batch_size=64", ["--sampler=m_per_class"]),
        ("--nohorizontal_flip\n--crop_area_min=0.5", ["--preprocessing=mnist"]),
        ("--beta_1=0.5\n--seed=3", ["--optimizer=sgd"]),
        ("--tensorboard_panels=3", ["--notensorboard"]),
        ("--chunk_size=5", ["--ccp_step_at_batch"]),
        ("--ccp_normalized_embeddings", ["--pool_size=1"]),
        ("--validation_cache_mb=9", ["--monitor_split=test"]),
        ("--train_fraction=0.4", ["--closed_set"]),
        ("--pool_size=5\n--ccp_lambda=0.1", ["--loss=contrastive"]),
        ("--data_seed=3", []),
        ("--ema_decay=0.9", []),
        ("--warm_up_learning_rate=0.1", []),
        (f"{CLASSES}--sampler=random", []),
    ],
)
def test_a_flag_without_effect_in_a_flagfile_is_a_warning(write, file, flags):
    write(base=file)
    arguments = ["--flagfile=base.cfg", *flags]
    command_line.parse(arguments)
    first, *_ = [text for text in command_line.warnings(arguments) if "has no effect" in text]
    assert first.startswith("base.cfg, line ")


def test_the_warning_names_both_flags_and_the_line(write):
    write(base=CLASSES)
    problem = "has no effect with --sampler=random; expected --sampler=m_per_class"
    assert command_line.warnings(["--flagfile=base.cfg", "--sampler=random"]) == [
        f"base.cfg, line 1: --classes_per_batch=6: {problem}",
        f"base.cfg, line 2: --samples_per_class=2: {problem}",
    ]
    assert command_line.warnings(["--flagfile=base.cfg"]) == []


def test_another_loss_on_the_command_line_ignores_the_parameters_of_the_one_in_the_flagfile(write):
    write(base=f"--loss=contrastive\n--positive_margin=0.1\n--average=all\n{CLASSES}")
    arguments = ["--flagfile=base.cfg", "--loss=triplet"]
    assert command_line.parse(arguments).loss.loss == "triplet"
    problem = "--positive_margin is not an option of --loss=triplet; remove it"
    assert command_line.warnings(arguments) == [f"base.cfg, line 2: --positive_margin=0.1: {problem}"]
    with pytest.raises(
        ConfigError, match="^--slack=0: --slack is not an option of --loss=triplet; remove it$"
    ):
        command_line.parse([*arguments, "--slack=0"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["--flagfile=random.cfg", "--classes_per_batch=6"],
        ["--classes_per_batch=6", "--flagfile=random.cfg"],
        ["--flagfile=base.cfg", "--sampler=random", "--classes_per_batch=6"],
        ["--classes_per_batch=6", "--sampler=random"],
    ],
)
def test_a_flag_without_effect_on_the_command_line_is_an_error(write, arguments):
    write(base="--classes_per_batch=6", random="--sampler=random")
    message = "^--classes_per_batch=6: has no effect with --sampler=random; expected --sampler=m_per_class$"
    with pytest.raises(ConfigError, match=message):
        command_line.parse(arguments)


@pytest.mark.parametrize("asked", ["--help", "-h", "--helpfull"])
def test_help_lists_every_flag(asked, capsys):
    assert outcome("--flagfile=none.cfg", asked) == 0
    text = capsys.readouterr().out
    for declared, _ in ExperimentConfig().items():
        assert f"\n  --{declared.name} " in text
    assert all(len(line) <= 120 for line in text.splitlines())
    values = "Takes one of average, max, both, none, gem."
    assert (values in " ".join(text.split())) == (asked == "--helpfull")


def test_the_default_run_directory_has_the_name_of_data_and_loss_without_a_flagfile():
    assert command_line.parse(["--loss=contrastive"]).run.run_dir.startswith("runs/emoji-contrastive-")


def test_the_default_run_directory_has_the_names_of_the_flagfiles(write):
    write(data="--seed=1", method="--seed=2")
    config = command_line.parse(["--flagfile=data.cfg", "--flagfile=method.cfg"])
    assert config.run.run_dir.startswith("runs/data-method-")


def test_the_default_run_directory_is_a_new_one_even_if_the_clock_stands_still(tmp_path, monkeypatch):
    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command_line.datetime, "datetime", Stopped)
    folders = []
    for _ in range(3):
        folders.append(Path(command_line.parse(["--dataset=emoji"]).run.run_dir))
        folders[-1].mkdir(parents=True)
    name = "emoji-ccp-contrastive-20260102-030405"
    assert [folder.name for folder in folders] == [name, f"{name}-2", f"{name}-3"]


@pytest.fixture
def printed(capsys, monkeypatch):
    """Runs --print_config; returns {"--flag=value": origin}, the whole output, and the errors."""

    def run(*arguments: str) -> tuple[dict[str, str], str, str]:
        monkeypatch.chdir(ROOT)
        assert outcome(*arguments, "--print_config") == 0
        captured = capsys.readouterr()
        pairs = [line.split(None, 1) for line in captured.out.splitlines() if line.startswith("  --")]
        return dict(pairs), captured.out, captured.err

    return run


def test_print_config_shows_the_origin_of_each_value(printed, tmp_path):
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


def test_print_config_keeps_flags_without_effect_from_a_flagfile(printed, tmp_path):
    (tmp_path / "base.cfg").write_text(f"{CLASSES}--seed=3")
    origins, _, errors = printed(f"--flagfile={tmp_path}/base.cfg", "--sampler=random")
    assert errors == ""
    assert origins["--classes_per_batch=6"] == f"{tmp_path}/base.cfg, line 1"
    assert origins["--sampler=random"] == "command line"
    assert origins["--batch_size=32"] == "derived"
    assert origins["--seed=3"] == f"{tmp_path}/base.cfg, line 3"


def test_print_config_lists_the_runs(printed):
    _, text, _ = printed("--protocol=mlrc", "--num_folds=2", "--repeat=2", "--run_dir=DIR", "--seed=3")
    assert text.startswith("4 runs, then a report on all of them in DIR:\n")
    assert "  fold 2, repeat 1 (seed 3): DIR/fold_2/repeat_1\n" in text
    _, text, _ = printed("--run_dir=DIR", "--loss=contrastive")
    assert text.startswith("One run in DIR.\n")
    assert "--pool_size" not in text


def test_print_config_does_not_need_the_data_but_warns(printed):
    origins, _, errors = printed("--dataset=image_folder", "--data_dir=/none")
    assert origins["--data_dir=/none"] == "command line"
    assert errors.startswith("warning: the command would stop with: --data_dir=/none")


def test_print_config_does_not_import_tensorflow():
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


def test_the_printed_flags_give_the_same_configuration_again(printed):
    arguments = ["--protocol=mlrc", "--fold=2", "--loss=triplet", "--margin=0.1", "--run_dir=/DIR"]
    origins, _, _ = printed(*arguments)
    assert command_line.parse(list(origins)) == command_line.parse(arguments)
