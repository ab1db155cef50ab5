"""The configurations that the project ships."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccp_dml.config import ExperimentConfig, command_line, flagfiles
from ccp_dml.config.fields import flags_of
from ccp_dml.errors import UserError
from ccp_dml.evaluation.paper import published

FOLDER = Path(__file__).parents[1] / "configs"
TOP_LEVEL = sorted(FOLDER.glob("*.cfg"))
ALL = sorted(FOLDER.rglob("*.cfg"))


def read(name: str) -> ExperimentConfig:
    return command_line.read([f"--flagfile={FOLDER / name}.cfg"])


def test_the_promised_ones_are_there():
    assert {"emoji", "emoji_contrastive", "cub", "cars196", "sop", "inshop"} <= {
        file.stem for file in TOP_LEVEL
    }


@pytest.mark.parametrize("file", ALL, ids=lambda file: str(file.relative_to(FOLDER)))
def test_each_one_can_be_read(file):
    # Those of the conventional protocol have values for the paper's data sets and two backbones only.
    place = ["--dataset=sop", "--backbone=resnet50"] if "conventional" in file.parts else []
    assert flagfiles.expand([f"--flagfile={file}", *place])
    command_line.read([f"--flagfile={file}", *place])


@pytest.mark.parametrize(
    "file",
    [*TOP_LEVEL, *(FOLDER / "losses").glob("*.cfg"), *(FOLDER / "conventional").glob("*.cfg")],
    ids=lambda file: str(file.relative_to(FOLDER)),
)
def test_the_header_says_what_it_is(file):
    header = re.match(r"(#.*\n)+", file.read_text(encoding="utf-8"))
    assert header is not None
    for word in ("Protocol:", "Source:", "Expected:", "Cost:"):
        assert word in header[0]
    command = re.search(r"# Command:  python train\.py (.*)", header[0])
    assert command is not None
    assert f"--flagfile=configs/{file.relative_to(FOLDER)}" in command[1].split()


@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop"])
def test_the_header_has_the_scores_of_the_paper(name):
    text = (FOLDER / f"{name}.cfg").read_text(encoding="utf-8")
    for dimensions in (128, 512):
        row = published(name, "ccp/contrastive", dimensions)
        assert row is not None
        scores = [f"{100 * row[1][metric]:.2f}" for metric in ("precision_at_1", "r_precision", "map_at_r")]
        line = next(line for line in text.splitlines() if f"{dimensions}-d" in line)
        assert re.findall(r"\d+\.\d\d", line) == scores


@pytest.mark.parametrize("name", ["emoji", "emoji_contrastive"])
def test_the_built_in_ones_run_as_they_are(name):
    config = command_line.parse([f"--flagfile={FOLDER / name}.cfg"])
    assert config.run.run_dir is not None
    assert re.fullmatch(rf"runs/{name}-\d{{8}}-\d{{6}}", config.run.run_dir)


@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop"])
def test_those_without_data_say_what_to_get(name):
    with pytest.raises(UserError, match="--data"):
        command_line.parse([f"--flagfile={FOLDER / name}.cfg"])


@pytest.mark.parametrize("name", ["cub", "cars196", "sop", "inshop"])
def test_those_of_the_paper_are_valid_but_for_what_is_missing(name):
    present = {"dataset": "emoji", "backbone": "efficientnet_lite0"}
    read(name).replace(**present).validate()


def test_the_emoji_configurations_differ_in_the_loss_only():
    with_ccp, base = read("emoji").to_dict(), read("emoji_contrastive").to_dict()
    different = {name for name in base if base[name] != with_ccp[name]}
    config = ExperimentConfig()
    of_ccp = {flag.name for flag in (*flags_of(config.loss), *flags_of(config.projection))}
    assert {"loss"} <= different <= of_ccp


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


def test_the_name_of_the_data_set_may_be_part_of_a_path(tmp_path):
    (tmp_path / "top.cfg").write_text("--dataset=cub\n--flagfile={dataset}/values.cfg\n")
    for name, seed in (("cub", 1), ("sop", 2), ("emoji", 3)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "values.cfg").write_text(f"--seed={seed}\n--flagfile=../{{dataset}}.cfg\n")
        (tmp_path / f"{name}.cfg").write_text(f"--patience={seed}\n")
    for flags, expected in (([], 1), (["--dataset=sop"], 2), (["-dataset", "emoji"], 3)):
        config = command_line.read([f"--flagfile={tmp_path}/top.cfg", *flags])
        assert (config.run.seed, config.training.patience) == (expected, expected)
    (tmp_path / "top.cfg").write_text("--flagfile={dataset}/values.cfg\n")
    assert command_line.read([f"--flagfile={tmp_path}/top.cfg"]).run.seed == 3


def test_the_name_of_the_backbone_may_be_part_of_a_path_too(tmp_path):
    (tmp_path / "top.cfg").write_text("--flagfile={backbone}-{dataset}.cfg\n--dataset=cub\n")
    (tmp_path / "resnet50-cub.cfg").write_text("--seed=1\n")
    (tmp_path / "bn_inception-cub.cfg").write_text("--seed=2\n")
    (tmp_path / "efficientnet_lite0-cub.cfg").write_text("--seed=3\n")
    for flags, expected in (([], 3), (["--backbone=resnet50"], 1), (["--backbone", "bn_inception"], 2)):
        assert command_line.read([f"--flagfile={tmp_path}/top.cfg", *flags]).run.seed == expected


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
