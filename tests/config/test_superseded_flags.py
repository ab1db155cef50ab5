"""What a flagfile says gives way where it does nothing with what is said on top; elsewhere it is an error."""

from __future__ import annotations

import pytest

import train
from ccp_dml.config import ExperimentConfig, command_line
from ccp_dml.errors import ConfigError

CLASSES = "--classes_per_batch=6\n--samples_per_class=2\n"


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes flagfiles into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_files(**contents: str) -> None:
        for name, content in contents.items():
            (tmp_path / f"{name}.cfg").write_text(content)

    return write_files


@pytest.mark.parametrize(
    "file, flags, expected",
    [
        (CLASSES, ["--sampler=random", "--batch_size=64"], {"sampler": "random", "batch_size": 64}),
        (CLASSES, ["--sampler", "class_uniform"], {"sampler": "class_uniform"}),
        ("--classes_per_batch\n6", ["-sampler=random"], {"sampler": "random"}),
        (
            "--representative_lifetime=3\n--augment_representatives",
            ["--sampler=random"],
            {"sampler": "random"},
        ),
        ("--sampler=random\n--batch_size=64", ["--sampler=m_per_class"], {"sampler": "m_per_class"}),
        ("--nohorizontal_flip\n--crop_area_min=0.5", ["--preprocessing=mnist"], {"preprocessing": "mnist"}),
        ("--beta_1=0.5\n--seed=3", ["--optimizer=sgd"], {"optimizer": "sgd", "seed": 3}),
        ("--tensorboard_panels=3", ["--notensorboard"], {"tensorboard": False}),
        ("--chunk_size=5", ["--ccp_step_at_batch"], {"ccp_step_at_batch": True}),
        ("--ccp_normalized_embeddings", ["--pool_size=1"], {"pool_size": 1}),
        ("--validation_cache_mb=9", ["--monitor_split=test"], {"monitor_split": "test"}),
        ("--train_fraction=0.4", ["--closed_set"], {"closed_set": "shuffled"}),
    ],
)
def test_the_command_line_is_on_top_of_a_file(write, file, flags, expected):
    write(base=file)
    config = command_line.read(["--flagfile=base.cfg", *flags])
    config.validate()
    assert config == ExperimentConfig.from_dict(expected)


def test_it_is_so_in_front_of_the_file_too_unless_that_says_otherwise(write):
    write(base=CLASSES, sampler="--sampler=m_per_class")
    arguments = ["--sampler=random", "--flagfile=base.cfg"]
    assert command_line.read(arguments) == ExperimentConfig.from_dict({"sampler": "random"})
    data = command_line.read([*arguments, "--flagfile=sampler.cfg"]).data
    assert (data.sampler, data.classes_per_batch) == ("m_per_class", 6)


def test_a_later_file_is_on_top_of_an_earlier_one(write):
    write(base=CLASSES, random="--sampler=random\n", outer="--flagfile=base.cfg\n--sampler=random")
    expected = ExperimentConfig.from_dict({"sampler": "random"})
    assert command_line.read(["--flagfile=base.cfg", "--flagfile=random.cfg"]) == expected
    assert command_line.read(["--flagfile=outer.cfg"]) == expected


@pytest.mark.parametrize(
    "arguments",
    [
        ["--flagfile=one_file.cfg"],
        ["--flagfile=random.cfg", "--flagfile=base.cfg"],
        ["--flagfile=random.cfg", "--classes_per_batch=6"],
        ["--classes_per_batch=6", "--flagfile=random.cfg"],
        ["--flagfile=base.cfg", "--sampler=random", "--classes_per_batch=6"],
        ["--classes_per_batch=6", "--sampler=random"],
    ],
)
def test_all_else_that_does_nothing_is_an_error(write, arguments):
    write(base=CLASSES, random="--sampler=random", one_file=f"{CLASSES}--sampler=random")
    message = "^--classes_per_batch=6: it does nothing with --sampler=random; expected --sampler=m_per_class$"
    with pytest.raises(ConfigError, match=message):
        command_line.parse(arguments)


def test_a_flag_that_has_nothing_on_top_of_it_is_an_error(write):
    write(base="--batch_size=64")
    with pytest.raises(ConfigError, match="--batch_size=64: it does nothing with --sampler=m_per_class"):
        command_line.parse(["--flagfile=base.cfg"])


def test_print_config_does_not_name_a_file_that_does_not_count(write, capsys):
    write(base=f"{CLASSES}--seed=3")
    train.main(["--flagfile=base.cfg", "--sampler=random", "--print_config"])
    printed = capsys.readouterr().out.splitlines()
    origins = dict(line.split(None, 1) for line in printed if line.startswith("  --"))
    assert origins["--classes_per_batch=8"] == "default"
    assert origins["--sampler=random"] == "command line"
    assert origins["--batch_size=32"] == "derived"
    assert origins["--seed=3"] == "base.cfg, line 3"
