"""Flagfiles: files that include others, mistakes in them, and configurations written as flagfiles."""

from __future__ import annotations

import os
import threading

import pytest

from ccp_dml.config import ExperimentConfig, command_line, flagfiles
from ccp_dml.errors import ConfigError


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes flagfiles, given as name=content, into the working directory."""
    monkeypatch.chdir(tmp_path)

    def write_files(**contents: str) -> None:
        for name, content in contents.items():
            (tmp_path / f"{name}.cfg").write_text(content)

    return write_files


def test_includes_are_relative_to_the_including_file(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "top.cfg").write_text("--flagfile=b/inner.cfg\n--seed=2\n")
    (tmp_path / "a" / "b" / "inner.cfg").write_text("// comment\n\n  --seed=1\n--flagfile=../leaf.cfg\n")
    (tmp_path / "a" / "leaf.cfg").write_text("# comment\n--patience=7")
    monkeypatch.chdir(tmp_path)
    expanded = flagfiles.expand(["--flagfile=a/top.cfg", "--seed=3"])
    assert [(argument.text, argument.origin) for argument in expanded] == [
        ("--seed=1", "a/b/inner.cfg, line 3"),
        ("--patience=7", "a/leaf.cfg, line 2"),
        ("--seed=2", "a/top.cfg, line 2"),
        ("--seed=3", "command line"),
    ]
    config = command_line.read(["--flagfile", "a/top.cfg", "--seed", "3"])
    assert (config.run.seed, config.training.patience) == (3, 7)


def test_a_file_may_be_included_twice(write):
    write(leaf="--seed=1", top="--flagfile=leaf.cfg\n--flagfile=leaf.cfg")
    assert len(flagfiles.expand(["--flagfile=top.cfg"])) == 2


@pytest.mark.parametrize("number", [101, 1000, 3000])
def test_a_long_chain_of_files(write, number):
    write(**{f"f{i}": f"--flagfile=f{i + 1}.cfg" for i in range(number)}, **{f"f{number}": "--seed=1"})
    with pytest.raises(
        ConfigError, match=r"f99\.cfg, line 1: --flagfile=f100\.cfg: expected at most 100 flag"
    ):
        flagfiles.expand(["--flagfile=f0.cfg"])
    assert [found.text for found in flagfiles.expand([f"--flagfile=f{number - 99}.cfg"])] == ["--seed=1"]


def test_files_that_are_included_twice_on_each_of_many_levels(write):
    write(**{f"f{i}": f"--flagfile=f{i + 1}.cfg\n" * 2 for i in range(25)}, f25="")
    with pytest.raises(ConfigError, match="expected at most 100 flagfiles"):
        flagfiles.expand(["--flagfile=f0.cfg"])


@pytest.mark.parametrize("file", ["/dev/zero", "/proc/self/environ", "nul.cfg", "long.cfg", "pipe"])
def test_what_is_no_file_of_flags_is_refused_without_its_content(write, tmp_path, file):
    write(nul="--seed=1\n--run_dir=secret\0x\n", long="# secret\n" * 200_000)
    os.mkfifo(tmp_path / "pipe")
    if file == "pipe":
        threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(b"secret\xff")).start()
    with pytest.raises(ConfigError, match=f"--flagfile={file}: cannot be read: not a text file") as raised:
        flagfiles.expand([f"--flagfile={file}"])
    assert "secret" not in str(raised.value)
    assert os.environ["PATH"] not in str(raised.value)


def test_a_name_with_a_null_byte(write):
    with pytest.raises(ConfigError, match="--flagfile: expected a file name"):
        flagfiles.expand(["--flagfile=a\0b"])


def test_only_the_files_on_the_command_line_are_listed(write):
    write(leaf="--seed=1", top="--flagfile=leaf.cfg")
    arguments = ["--seed=2", "--flagfile=top.cfg", "-flagfile", "leaf.cfg"]
    assert flagfiles.included(arguments) == ["top.cfg", "leaf.cfg"]


@pytest.mark.parametrize(
    "content, message",
    [
        ("--flagfile=top.cfg", "top.cfg, line 1: --flagfile=top.cfg: the file includes itself"),
        ("--flagfile=back.cfg", "back.cfg, line 1: --flagfile=top.cfg: the file includes itself"),
        ("\n--flagfile=none.cfg", "top.cfg, line 2: --flagfile=none.cfg: cannot be read: No such file"),
        ("--flagfile=.", "top.cfg, line 1: --flagfile=.: cannot be read: Is a directory"),
        ("--flagfile=", "top.cfg, line 1: --flagfile: expected a file name"),
        ("--flagfile=binary.cfg", "top.cfg, line 1: --flagfile=binary.cfg: cannot be read: not a text file"),
        ("--seed=1\n--sed=2", "top.cfg, line 2: --sed: unknown flag; did you mean --seed?"),
        ("--seed=one", "top.cfg, line 1: --seed=one: expected an integer"),
        ("seed=1", "top.cfg, line 1: seed=1: unexpected argument"),
        ("--seed=one\n--seed=1", "top.cfg, line 1: --seed=one: expected an integer"),
        ("--seed", "top.cfg, line 1: --seed: there is no value; expected --seed=value"),
    ],
)
def test_a_mistake_in_a_flagfile_names_file_and_line(write, tmp_path, content, message):
    write(top=content, back="--flagfile=top.cfg")
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError) as error:
        command_line.read(["--flagfile=top.cfg"])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"loss": "contrastive", "negative_margin": 0.1 + 0.2, "overwrite": True, "horizontal_flip": False},
        {"frozen_layers": ("stem", r"block\d_"), "initial_weights": "runs/fold_{fold}", "fold": 1},
        {"pool_size": 3, "ccp_random_init": True, "pair_normalization": "unit", "proxy_anchor": False},
        {"data_dir": "/images of #1/ünd, more=", "recall_at": (), "map_at": (1, 10, 100)},
        {"mixed_precision": "mixed_float16", "learning_rate": 1e-17, "ccp_max_iterations": 3},
        {"closed_set": "in_order", "sampler": "random", "batch_size": 7, "preprocessing": "cifar"},
    ],
)
def test_a_configuration_is_written_as_a_flagfile_and_read_again(tmp_path, values):
    config = ExperimentConfig.from_dict(values)
    file = tmp_path / "config.cfg"
    file.write_text(flagfiles.to_flagfile(config), encoding="utf-8")
    assert command_line.read([f"--flagfile={file}"]) == config
