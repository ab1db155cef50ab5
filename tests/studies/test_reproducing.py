"""The rows of the paper's tables and their commands."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from ccp_dml.config import command_line
from ccp_dml.config.checks import check_flags
from ccp_dml.config.protocols import members, resolve
from ccp_dml.evaluation import paper
from configs.generate import cost
from studies.reproducing import report as reproducing

NAMES = {"CUB": "cub", "Cars196": "cars196", "InShop": "inshop", "SOP": "sop"}
LOSSES = {
    "C1": "original_contrastive",
    "C2": "contrastive",
    "MS": "multi_similarity",
    "Triplet": "triplet",
    "ProxyAnchor": "proxy_anchor",
    "ProxyNCA++": "proxy_nca",
    "SoftTriple": "soft_triple",
}
WRAPPERS = {"CCP": "ccp/", "XBM": "xbm/"}


def table() -> list[dict[str, str]]:
    """The rows of the paper without HPL-PA, which this library does not have."""
    with Path(paper.__file__).with_name("paper_results.csv").open(encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["method"] != "HPL-PA"]


def test_every_row_of_the_paper_has_a_command():
    expected = {
        (
            NAMES[row["dataset"]],
            row["method"],
            int(row["dims"]),
            (float(row["P@1"]), float(row["P@R"]), float(row["MAP@R"])),
        )
        for row in table()
    }
    rows = reproducing.rows()
    assert {(row.dataset, row.method, row.dimensions, row.scores) for row in rows} == expected
    assert len(rows) == len(expected) == 104


@pytest.mark.parametrize("row", reproducing.rows(), ids=lambda row: row.key)
def test_the_command_of_a_row_is_valid(row, monkeypatch):
    monkeypatch.chdir(reproducing.ROOT)
    python, program, *arguments = shlex.split(row.command)
    assert (python, program) == ("python", "train.py")
    config = command_line.read(arguments)
    check_flags(config)
    complete = resolve(config)
    base, *wrapper = row.method.removesuffix("-S").removesuffix("-L").split("-")
    assert config.loss.loss == "".join(WRAPPERS[name] for name in wrapper) + LOSSES[base]
    assert config.source.dataset == row.dataset
    assert len(members(complete)) == 12
    assert {512: 4, 128: 1}[row.dimensions] * config.model.embedding_size == row.dimensions


def test_the_document_is_up_to_date():
    measured = json.loads(reproducing.MEASURED.read_text())
    text = reproducing.DOCUMENT.read_text(encoding="utf-8")
    assert text == reproducing.document(text, measured), "run python -m studies.reproducing.report"


@pytest.mark.parametrize(
    "dataset, method, expected",
    [
        ("sop", "C2", "62K steps, 97 ms each"),
        ("inshop", "C2-CCP-L", "127K steps, 105 ms each"),
        ("inshop", "SoftTriple-S", "82K steps"),
        ("cub", "C2", "97 ms each"),
        ("sop", "C1-XBM-L", "not reported"),
    ],
)
def test_the_cost_of_a_run_in_the_paper(dataset, method, expected):
    assert cost(dataset, method) == expected


def write_group(folder: Path, *flags: str) -> Path:
    """A finished group of the command of C2-CCP on CUB-200-2011, its scores made up."""
    (row, *_) = (row for row in reproducing.rows() if row.key == "cub/C2-CCP-L/512")
    config = resolve(command_line.read([f"--flagfile={reproducing.ROOT / 'configs' / row.flagfile}", *flags]))
    scores = {"precision_at_1": 0.7, "r_precision": 0.39, "map_at_r": 0.28125, "num_queries": 5924}
    kind = {"repeats": [scores] * config.run.repeat, "mean": scores}
    if config.run.repeat > 1:
        kind["confidence_95"] = dict.fromkeys(scores, 0.004)
    results = {"config": config.to_dict(), "separate": kind, "concatenated": kind}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.mark.parametrize(
    "repeat, expected",
    [
        (3, "70.00 ± 0.40, 39.00 ± 0.40, 28.12 ± 0.40 (repeats: 3)"),
        (1, "70.00, 39.00, 28.12 (repeats: 1)"),
    ],
)
def test_a_finished_group_is_added(tmp_path, repeat, expected):
    measured: dict = {}
    flags = [f"--repeat={repeat}", "--seed=7", "--data_dir=birds", "--notensorboard"]
    reproducing.add(write_group(tmp_path, *flags), measured)
    assert sorted(measured) == ["cub/C2-CCP-L/128", "cub/C2-CCP-L/512"]
    text = reproducing.document(reproducing.DOCUMENT.read_text(encoding="utf-8"), measured)
    lines = [line for line in text.splitlines() if expected in line]
    assert len(lines) == 2
    assert all(line.startswith("| C2-CCP-L |") for line in lines)


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--max_epochs=3"], "found --max_epochs=3; expected the flags of python train.py --flagfile="),
        (["--check_counts=false"], "found --check_counts=False"),
        (["--dataset=emoji"], "no row of --dataset=emoji --loss=ccp/contrastive"),
    ],
)
def test_another_group_is_refused(tmp_path, flags, message):
    with pytest.raises(SystemExit, match=message):
        reproducing.add(write_group(tmp_path, *flags), {})
