"""Paths: characters of patterns, home folders, and a folder of images without the name of a data set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow as tf

import train
from ccp_dml import commands, evaluate, export
from ccp_dml.config import ExperimentConfig, checks, command_line
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.files import without_patterns
from ccp_dml.monitoring.events import EventLog
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.checkpoints import Checkpoints
from tests.data.image_folder import write_classes
from tests.experiment import tiny_backbone

# Characters that a shell, a pattern or a regular expression would interpret.
NAMES = ["run[1]", "a*b?", "back\\slash", "[a-c]", "{x}", "a b", "ré", "%s", "$HOME", "a\\[b]", "~x"]


@pytest.fixture
def in_folder(tmp_path, monkeypatch) -> Path:
    """An empty working directory; the home folder lies beside it."""
    folder, home = tmp_path / "here", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(home))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        tiny_backbone.register(monkeypatch)
        yield write_classes(tmp_path_factory.mktemp("images") / "ph[o]tos", 8)


def small(source: Path, prepared: str = "prepared") -> list[str]:
    return [
        f"--data_dir={source}",
        f"--prepared_dir={prepared}",
        "--backbone=tiny",
        "--embedding_size=4",
        "--classes_per_batch=2",
        "--samples_per_class=2",
        "--loss=contrastive",
        "--validation_fraction=0.5",
        "--steps_per_epoch=1",
    ]


def outcome(main, *arguments: str) -> int:
    return commands.run(lambda: main(arguments))


@pytest.mark.parametrize(
    "name", [name if name == "run[1]" else pytest.param(name, marks=pytest.mark.slow) for name in NAMES]
)
def test_a_run_in_any_folder_is_continued_evaluated_exported_and_started_from(source, in_folder, name):
    command = [*small(source, f"./{name}/prepared"), f"--run_dir=./{name}/run"]
    assert outcome(train.main, *command, "--max_epochs=1") == 0
    assert outcome(train.main, *command, "--max_epochs=2") == 0
    run = RunDirectory(in_folder / name / "run")
    assert run.read_results()["epochs"] == 2
    assert outcome(evaluate.main, f"--run_dir=./{name}/run") == 0
    assert outcome(export.main, f"--run_dir=./{name}/run", f"--output=./{name}/model") == 0
    assert (in_folder / name / "model" / "saved_model.pb").exists()
    again = [*small(source, f"./{name}/prepared"), f"--initial_weights=./{name}/run", "--max_epochs=0"]
    assert outcome(train.main, *again, "--run_dir=other") == 0
    assert RunDirectory("other").read_results()["test"] == run.read_results()["test"]


@pytest.mark.parametrize("name", NAMES)
def test_checkpoints_and_events_in_any_folder(tmp_path, name):
    folder, value, step = tmp_path / name, tf.Variable(3.0), tf.Variable(5, dtype=tf.int64)
    folder.mkdir()
    for state in ("save", "restore"):
        checkpoints = Checkpoints(folder / "checkpoints")
        checkpoints.track(value=value)
        if state == "save":
            checkpoints.save(1)
            value.assign(0.0)
    assert checkpoints.restore()
    assert float(value) == 3.0
    events = EventLog(str(folder), lambda: int(step))
    events.scalar("train", "a", 1.0)
    events.flush()
    step.assign(2)
    EventLog(str(folder), lambda: int(step)).begin()  # Removes the point of step 5.
    assert not list((folder / "train").iterdir())


def test_a_name_without_patterns_is_used_as_it_is(tmp_path):
    with without_patterns(tmp_path / "state") as path:
        assert path == tmp_path / "state"


PATHS = ("run_dir", "data_dir", "prepared_dir", "backbone_weights", "initial_weights")


@pytest.mark.parametrize("flag", PATHS)
def test_a_path_in_the_home_folder(in_folder, flag):
    home = os.environ["HOME"]
    read = command_line.read([f"--{flag}=~/x"])
    assert getattr(read.flags, flag) == f"{home}/x"
    assert read == ExperimentConfig.from_dict({flag: "~/x"})
    assert getattr(command_line.read([f"--{flag}=a/~/x"]).flags, flag) == "a/~/x"
    for unknown in ("~nobody-of-this-name/x", "~nobody-of-this-name"):
        with pytest.raises(ConfigError, match=f"--{flag}={unknown}: expected "):
            command_line.read([f"--{flag}={unknown}"])


@pytest.mark.parametrize("flag", PATHS)
@pytest.mark.parametrize("value", [os.fsdecode(b"r\xe9"), "a\0b"])
def test_a_path_that_is_not_text_is_refused(flag, value):
    with pytest.raises(ConfigError, match=f"--{flag}=.*: expected "):
        command_line.read([f"--{flag}={value}"])


def test_home_folders_of_the_other_commands(source, in_folder, capsys):
    """In each of their arguments."""
    home = Path(os.environ["HOME"])
    command = [*small(source, "~/prepared"), "--max_epochs=0", "--run_dir=~/run", "--notensorboard"]
    assert outcome(train.main, *command) == 0
    assert outcome(evaluate.main, "--run_dir=~/run", "--prepared_dir=~/again") == 0
    assert outcome(export.main, "--run_dir=~/run", "--output=~/model") == 0
    assert {path.name for path in home.iterdir()} == {"run", "prepared", "again", "model"}
    capsys.readouterr()
    assert outcome(evaluate.main, "--run_dir=~/run", "--data_dir=~/none") == commands.BAD_INPUT
    assert f"--data_dir={home}/none is not a folder" in capsys.readouterr().err
    assert outcome(export.main, "--run_dir=~/run", "--output=~nobody-of-this-name/m") == commands.BAD_INPUT
    assert list(in_folder.iterdir()) == []


def test_a_folder_of_images_needs_no_name_of_a_data_set(source, tmp_path):
    flags = small(source)
    assert command_line.parse(flags).source.dataset == "image_folder"
    assert command_line.parse([*flags, "--dataset=image_folder"]) == command_line.parse(
        [*flags, f"--run_dir={command_line.parse(flags).run.run_dir}"]
    ).replace(run_dir=command_line.parse([*flags, "--dataset=image_folder"]).run.run_dir)
    file = tmp_path / "flags.cfg"
    file.write_text("\n".join(flags))
    assert command_line.parse([f"--flagfile={file}"]).source.dataset == "image_folder"
    explained, problem = command_line.explanation_asked([*flags, "--print_config"])
    assert "--dataset=image_folder" in explained
    assert problem is None
    with pytest.raises(UserError, match="--data_dir=/none is not a folder"):
        command_line.parse([*flags, "--data_dir=/none"])
    assert command_line.parse(["--data_dir="]).source.dataset == "emoji"


def test_images_that_a_named_data_set_does_not_read_are_mentioned(source):
    expected = f"--data_dir={source}: has no effect with --dataset=emoji; expected --dataset=image_folder"
    (warning,) = command_line.warnings(["--dataset=emoji", f"--data_dir={source}"])
    assert warning.startswith(expected)
    config = ExperimentConfig()
    with pytest.raises(ConfigError, match="has no effect with --dataset=emoji"):
        checks.with_other_evaluation(config, dataset="emoji", data_dir=str(source))
    evaluated = checks.with_other_evaluation(config, data_dir=str(source))
    assert (evaluated.source.dataset, evaluated.source.data_dir) == ("image_folder", str(source))
