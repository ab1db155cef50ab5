"""Training runs of a study."""

from __future__ import annotations

import json

from studies import training_runs

SCORES = {"precision_at_1": 0.5, "r_precision": 0.25, "map_at_r": 0.125}


def finished_run(root) -> training_runs.Run:
    run = training_runs.Run("study", "name/part", "emoji/c2", {"patience": 0}, seed=3, root=root)
    run.directory.mkdir(parents=True)
    results = {"frozen_features": SCORES, "test": SCORES, "best_epoch": 0, "time_shares": {"resets": 0.1}}
    results["config"] = {"steps_per_epoch": 50}
    (run.directory / "results.json").write_text(json.dumps(results))
    rows = "step,problem_instance,val_map_at_r,test_map_at_r\n50,0,0.25,\n100,1,0.5,0.125\n"
    (run.directory / "metrics.csv").write_text(rows)
    return run


def test_the_command_is_the_documented_one(tmp_path):
    command = training_runs.Run("study", "name", "emoji/c2", {"patience": 0}, 3, tmp_path).command()
    expected = ["train.py", "--flagfile=configs/emoji/c2.cfg", "--patience=0", "--seed=3"]
    assert command[1:] == [*expected, f"--run_dir={tmp_path}/study/name/seed_3", "--tensorboard=false"]


def test_finished_runs_are_collected_and_not_trained_again(tmp_path):
    run, file = finished_run(tmp_path / "runs"), tmp_path / "results.json"
    file.write_text(json.dumps({"other/seed_0": {}}))
    training_runs.train([run], jobs=1, threads=1, budget_minutes=1)
    found = training_runs.collect([run], file)
    assert json.loads(file.read_text()) == found
    assert sorted(found) == ["name/part/seed_3", "other/seed_0"]
    measured = found["name/part/seed_3"]
    assert measured["test"] == {"precision_at_1": 50.0, "r_precision": 25.0, "map_at_r": 12.5}
    assert measured["instance"] == [0, 1]
    assert measured["validation_map_at_r"] == [25.0, 50.0]
    assert measured["test_map_at_r"] == [None, 12.5]


def test_nothing_is_trained_after_the_budget(tmp_path):
    run = training_runs.Run("study", "name", "emoji/c2", {}, 0, tmp_path)
    training_runs.train([run], jobs=1, threads=1, budget_minutes=-1)
    assert not run.directory.parent.exists()
    assert training_runs.collect([run], tmp_path / "results.json") == {}


def test_spread_is_mean_and_standard_deviation():
    assert training_runs.spread([1.0, 3.0]) == "2.0 ± 1.4"
    assert training_runs.spread([1.25], digits=2) == "1.25"
