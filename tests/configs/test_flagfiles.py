"""Flagfiles that include one another."""

from __future__ import annotations

import pytest

from ccp_dml.config import command_line, flagfiles
from ccp_dml.errors import UserError


def test_includes_are_relative_to_the_including_file(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "top.cfg").write_text("--flagfile=b/inner.cfg\n--seed=2\n")
    (tmp_path / "a" / "b" / "inner.cfg").write_text("// comment\n\n  --seed=1\n--flagfile=../leaf.cfg\n")
    (tmp_path / "a" / "leaf.cfg").write_text("# comment\n--patience=7")
    monkeypatch.chdir(tmp_path)
    texts = [argument.text for argument in flagfiles.expand(["--flagfile=a/top.cfg", "--seed=3"])]
    assert texts == ["--seed=1", "--patience=7", "--seed=2", "--seed=3"]
    config = command_line.read(["--flagfile", "a/top.cfg", "--seed", "3"])
    assert (config.run.seed, config.training.patience) == (3, 7)


def test_a_file_may_be_included_twice(tmp_path):
    (tmp_path / "leaf.cfg").write_text("--seed=1")
    (tmp_path / "top.cfg").write_text("--flagfile=leaf.cfg\n--flagfile=leaf.cfg")
    assert len(flagfiles.expand([f"--flagfile={tmp_path}/top.cfg"])) == 2


@pytest.mark.parametrize(
    "content, problem",
    [
        ("--flagfile=top.cfg", "includes itself"),
        ("--flagfile=back.cfg", "includes itself"),
        ("\n--flagfile=none.cfg", "top.cfg, line 2: --flagfile="),
        ("--flagfile=.", "Is a directory"),
        ("--flagfile=", "expected a file name"),
        ("--flagfile=binary.cfg", "not a text file"),
        ("--seed=1\n--sed=2", "top.cfg, line 2: --sed: unknown flag; did you mean --seed?"),
        ("--seed=one", "top.cfg, line 1: --seed=one: expected an integer"),
        ("seed=1", "top.cfg, line 1: seed=1: unexpected argument"),
    ],
)
def test_a_mistake_in_a_flagfile_names_the_file(tmp_path, content, problem):
    (tmp_path / "top.cfg").write_text(content)
    (tmp_path / "back.cfg").write_text("--flagfile=top.cfg")
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError) as error:
        command_line.read([f"--flagfile={tmp_path}/top.cfg"])
    assert problem in str(error.value)
    assert "top.cfg" in str(error.value)
