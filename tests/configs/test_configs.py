"""All flagfiles in configs/: they are valid, documented, and up to date with their generator."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ccp_dml.config import command_line
from ccp_dml.config.checks import check, check_flags
from ccp_dml.config.experiment_config import ExperimentConfig
from ccp_dml.errors import UserError
from ccp_dml.evaluation.paper import published
from ccp_dml.options import options_of
from configs import generate

FOLDER = Path(__file__).parents[2] / "configs"
TOP_LEVEL = sorted(file.stem for file in FOLDER.glob("*.cfg"))
COMMON = ("common/paper.cfg", "common/conventional.cfg", "common/emoji.cfg")
GENERATED = generate.flagfiles()
PAPER = ("cub", "cars196", "sop", "inshop")


def read(name: str) -> ExperimentConfig:
    return command_line.read([f"--flagfile={FOLDER / name}.cfg"])


def test_the_promised_data_sets_are_there():
    assert set(TOP_LEVEL) == {"emoji", "cub", "cars196", "sop", "inshop"}


def test_every_file_is_as_the_generator_writes_it():
    found = {
        str(file.relative_to(FOLDER)): file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.cfg")
    }
    assert set(found) == {*COMMON, *GENERATED}
    different = [name for name, text in GENERATED.items() if found[name] != text]
    assert different == [], "run python -m configs.generate"


@pytest.mark.parametrize(
    "file", sorted(FOLDER.rglob("*.cfg")), ids=lambda file: str(file.relative_to(FOLDER))
)
def test_every_file_is_valid(file):
    check_flags(command_line.read([f"--flagfile={file}"]))


@pytest.mark.parametrize("name", GENERATED)
def test_no_flag_is_without_effect(name):
    warnings = command_line.warnings([f"--flagfile={FOLDER / name}"])
    assert [text for text in warnings if "--protocol=conventional" not in text] == []


@pytest.mark.parametrize("name", GENERATED)
def test_a_file_includes_at_most_two_and_empties_no_flag(name):
    lines = GENERATED[name].splitlines()
    included = [line for line in lines if line.startswith("--flagfile=")]
    assert 1 <= len(included) <= 2
    assert not any("{" in line for line in included)
    assert not any(line.endswith("=") for line in lines)


@pytest.mark.parametrize("name", GENERATED)
def test_the_header_says_what_it_is(name):
    header = re.match(r"(#.*\n)+", GENERATED[name])
    assert header is not None
    for word in ("Protocol:", "Source:", "Expected:", "Cost:"):
        assert word in header[0]
    command = re.search(r"# Command:  python train\.py (.*)", header[0])
    assert command is not None
    assert f"--flagfile=configs/{name}" in command[1].split()


@pytest.mark.parametrize("method", [None, *generate.METHODS])
@pytest.mark.parametrize("dataset", PAPER)
def test_the_header_has_the_scores_of_the_paper(dataset, method):
    text = (FOLDER / (f"{dataset}/{method}.cfg" if method else f"{dataset}.cfg")).read_text(encoding="utf-8")
    for dimensions in (128, 512):
        row = published(dataset, generate.METHODS[method or "c2_ccp"].loss, dimensions)
        assert row is not None
        scores = [f"{100 * row[1][metric]:.2f}" for metric in ("precision_at_1", "r_precision", "map_at_r")]
        line = next(line for line in text.splitlines() if f"{dimensions}-d" in line)
        assert re.findall(r"\d+\.\d\d", line) == scores


@pytest.mark.parametrize("name", ["emoji", "emoji/c2"])
def test_the_built_in_ones_run_as_they_are(name):
    config = command_line.parse([f"--flagfile={FOLDER / name}.cfg"])
    assert config.run.run_dir is not None
    assert re.fullmatch(rf"runs/{name.replace('/', '-')}-\d{{8}}-\d{{6}}", config.run.run_dir)


@pytest.mark.parametrize("name", PAPER)
def test_those_without_data_say_what_to_get(name):
    with pytest.raises(UserError, match="--data"):
        command_line.parse([f"--flagfile={FOLDER / name}.cfg"])


@pytest.mark.parametrize("name", PAPER)
def test_those_of_the_paper_are_valid_with_data_and_weights(name):
    check(read(name).replace(dataset="emoji", backbone="efficientnet_lite0"))


def test_the_emoji_configurations_differ_in_the_loss_only():
    with_ccp, base = read("emoji").to_dict(), read("emoji/c2").to_dict()
    different = {name for name in base if base[name] != with_ccp[name]}
    config = ExperimentConfig()
    ccp_options = {flag.name for flag in (*options_of(config.loss), *options_of(config.projections))}
    assert {"loss"} <= different <= ccp_options
