"""Finished runs and groups that a larger --max_epochs continues: as if they had had it from the start."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from ccp_dml import commands, evaluate
from ccp_dml.run_directory import RunDirectory, State
from tests.data.image_folder import write_image
from tests.experiment import tiny_backbone
from tests.reliability import launcher
from tests.reliability.killed_runs import assert_same

PATIENCE = ["--ccp_reset_rule=patience", "--ccp_patience=1"]
CASES = {
    "ccp": ["--loss=ccp/contrastive", "--proxies_per_class=2", "--pool_size=3", *PATIENCE],
    "schedule and memory": [
        "--loss=xbm/contrastive",
        "--learning_rate_schedule=plateau",
        "--plateau_patience=1",
        "--optimizer=radam",
    ],
    "warm-up": ["--loss=contrastive", "--warm_up_epochs=3", "--norestore_best"],
    "stopped early": ["--loss=contrastive", "--patience=1", "--learning_rate=1e-9"],
}


@pytest.fixture(scope="module", autouse=True)
def backbone() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_backbone.register(monkeypatch)
        yield


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    """Flags on twelve classes of nearly the same colours: no score is perfect."""
    root = tmp_path_factory.mktemp("images")
    for label in range(12):
        for index in range(3):
            file = root / "source" / f"class {label:02d}" / f"{index}.png"
            write_image(file, (120 + 4 * (label % 4), 120 + 4 * (label // 4), 128), 10 * label + index)
    return [
        f"--data_dir={root / 'source'}",
        f"--prepared_dir={root / 'prepared'}",
        "--backbone=tiny",
        "--embedding_size=4",
        "--classes_per_batch=3",
        "--samples_per_class=2",
        "--learning_rate=0.01",
        "--steps_per_epoch=2",
        "--notensorboard",
    ]


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_run_that_was_made_longer_is_a_run_of_that_length(flags, tmp_path, case):
    whole, longer = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "longer")
    command = [*flags, *CASES[case]]
    assert outcome(train.main, *command, f"--run_dir={whole.path}", "--max_epochs=4") == 0
    for epochs in (2, 4):
        assert outcome(train.main, *command, f"--run_dir={longer.path}", f"--max_epochs={epochs}") == 0
    assert_same(longer, whole)
    assert (whole.read_results()["epochs"] == 4) is (case != "stopped early")


@pytest.fixture(scope="module")
def short(flags, tmp_path_factory) -> RunDirectory:
    directory = RunDirectory(tmp_path_factory.mktemp("runs") / "short")
    assert outcome(train.main, *flags, *CASES["ccp"], f"--run_dir={directory.path}", "--max_epochs=2") == 0
    return directory


def test_nothing_is_lost_while_a_run_is_made_longer(flags, short, tmp_path, capsys):
    """At each interruption the results and the exported model are there, and it can be evaluated."""
    run = RunDirectory(shutil.copytree(short.path, tmp_path / "run"))
    command = [*flags, *CASES["ccp"], f"--run_dir={run.path}", "--max_epochs=3"]
    before, model = run.read_results(), (run.saved_model / "saved_model.pb").read_bytes()
    for place in ("config.cfg", "metrics.csv", "checkpoint_write", "weights", "export", "results.json"):
        with launcher.Fault(f"{place}:1:ENOSPC"):
            assert outcome(train.main, *command) == commands.BAD_INPUT
        assert run.state is State.FINISHED
        assert run.read_results() == before
        assert (run.saved_model / "saved_model.pb").exists()
        if place in ("metrics.csv", "checkpoint_write"):
            capsys.readouterr()
            assert outcome(evaluate.main, f"--run_dir={run.path}") == 0
            assert f"{100 * before['test']['map_at_r']:.1f}" in capsys.readouterr().out
            assert (run.saved_model / "saved_model.pb").read_bytes() == model
    assert outcome(train.main, *command) == 0
    assert run.read_results()["epochs"] == 3


@pytest.mark.parametrize(
    "changes, complaint",
    [
        (["--max_epochs=2"], "it holds a finished run; expected another folder, or --overwrite"),
        (["--max_epochs=1"], "it holds a finished run; expected another folder, or --overwrite"),
        (["--max_epochs=3", "--seed=1"], "--seed=1: the finished run in"),
        (["--max_epochs=3", "--learning_rate=0.02"], "--learning_rate=0.02: the finished run in"),
    ],
)
def test_a_finished_run_is_refused_otherwise(flags, short, capsys, changes, complaint):
    command = [*flags, *CASES["ccp"], f"--run_dir={short.path}", *changes]
    assert outcome(train.main, *command) == commands.BAD_INPUT
    assert complaint in capsys.readouterr().err
    assert short.read_results()["epochs"] == 2


@pytest.mark.slow
def test_a_group_is_made_longer_with_all_of_its_runs(flags, tmp_path, capsys):
    command = [*flags, "--loss=contrastive", "--num_folds=2", "--fold=all"]
    whole, longer = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "longer")
    assert outcome(train.main, *command, f"--run_dir={whole.path}", "--max_epochs=2") == 0
    assert outcome(train.main, *command, f"--run_dir={longer.path}", "--max_epochs=1") == 0
    with launcher.Fault("results.json:2:ENOSPC"):  # Of the second run; the first is longer already.
        again = [*command, f"--run_dir={longer.path}", "--max_epochs=2"]
        assert outcome(train.main, *again) == commands.BAD_INPUT
    capsys.readouterr()
    assert outcome(evaluate.main, f"--run_dir={longer.path}") == commands.BAD_INPUT
    assert "some of its runs have --max_epochs=1, others --max_epochs=2" in capsys.readouterr().err
    assert outcome(train.main, *again) == 0
    for path in ("fold_1/repeat_1", "fold_2/repeat_1"):
        assert_same(RunDirectory(Path(longer.path, path)), RunDirectory(Path(whole.path, path)))
    found, wanted = longer.read_results(), whole.read_results()
    assert found["concatenated"] == wanted["concatenated"]
    assert outcome(evaluate.main, f"--run_dir={longer.path}") == 0
