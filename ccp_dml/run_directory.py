"""The folder of a run: where its files are, and whether a run may begin, continue or be replaced there."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from ccp_dml import environment, files
from ccp_dml.config import ExperimentConfig, command_line, flagfiles
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.options import Change

_MARKER = ".ccp_dml_run"
# What a process may leave behind that is killed before it has written the marker.
_BEFORE_MARKER = (files.LOCK, files.LOCK_HOLDER, files.partial(Path(_MARKER)).name)
# Folders of the runs of a group.
_MEMBERS = "fold_*/repeat_*"
EMBEDDED_SETS = ("test", "test_gallery", "training")


class State(enum.Enum):
    """What a folder holds."""

    NEW = "nothing"
    UNFINISHED = "a run without results"
    FINISHED = "a run with results"
    FOREIGN = "something that is no run"


class RunDirectory:
    """The files of one run, or of a group of runs (folds, repeats) whose folders are below it.

    A run directory is recognised by a marker file and finished once it has `results.json`. Nothing is ever
    deleted that a run does not write itself.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.results = self.path / "results.json"
        self.table = self.path / "results.csv"
        self.metrics = self.path / "metrics.csv"
        self.saved_model = self.path / "saved_model"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.config = self.path / "config.cfg"
        self.environment = self.path / "environment.json"
        self._marker = self.path / _MARKER

    @classmethod
    def of(cls, config: ExperimentConfig) -> RunDirectory:
        """The directory that a configuration names."""
        if config.run.run_dir is None:
            raise ConfigError("--run_dir: expected a folder")
        return cls(config.run.run_dir)

    @property
    def state(self) -> State:
        """What the folder holds now.

        Raises:
            ConfigError: the path is no folder, or the folder cannot be read.
        """
        try:
            if not self.path.exists() or all(file.name in _BEFORE_MARKER for file in self.path.iterdir()):
                return State.NEW
        except OSError as error:
            raise ConfigError(f"--run_dir={self.path}: expected a folder: {error.strerror}") from None
        if not self._marker.exists():
            return State.FOREIGN
        return State.FINISHED if self.results.exists() else State.UNFINISHED

    def check(self, config: ExperimentConfig, *, writes: bool = True) -> None:
        """Raises `ConfigError` if a run with this configuration may not use the folder; changes nothing.

        Args:
            config: the run's.
            writes: whether this process is going to write there.
        """
        existing = next(
            path for path in (self.path.absolute(), *self.path.absolute().parents) if path.exists()
        )
        if not existing.is_dir() or (writes and not os.access(existing, os.W_OK)):
            raise ConfigError(
                f"--run_dir={self.path}: expected a folder; {existing} is none that can be written to"
            )
        state = self.state
        if state is State.FOREIGN:
            raise ConfigError(
                f"--run_dir={self.path}: the folder holds files and is no run directory; "
                "expected a new or empty folder, or an earlier run"
            )
        if config.run.overwrite:
            return
        if state is State.FINISHED:
            raise ConfigError(
                f"--run_dir={self.path}: it holds a finished run; expected another folder, or --overwrite"
            )
        if state is State.UNFINISHED and self.config.exists():
            self._check_same_flags(config)

    def holds_finished(self, config: ExperimentConfig) -> bool:
        """Whether the run with this configuration is here and finished.

        Raises:
            ConfigError: a finished run is here, with other flags.
        """
        if self.state is not State.FINISHED:
            return False
        # A larger number of epochs does not make a finished run longer.
        for name, (before, now) in self._changed_flags(config, unless=(Change.FREE,)).items():
            raise ConfigError(
                f"--{name}={_shown(now)}: the finished run in {self.path} has {_shown(before)}; "
                "expected the same flags, another --run_dir, or --overwrite"
            )
        return True

    def begin(self, config: ExperimentConfig) -> bool:
        """Prepares the folder for a run, or for going on with one.

        The same command always continues an unfinished run, also one that began with --overwrite; --overwrite
        replaces any other run.

        Returns:
            Whether an unfinished run is continued.

        Raises:
            ConfigError: see `check`.
        """
        self.check(config)
        if self._continues(config):
            self._write_config(config)
            return True
        self._clear()
        self._write_beginning(config)
        return False

    def read_config(self) -> ExperimentConfig:
        """The configuration of the run that is here; its `run_dir` is this folder.

        Raises:
            ConfigError: the folder is no run directory, or its flagfile cannot be read.
        """
        if self.state not in (State.UNFINISHED, State.FINISHED):
            raise ConfigError(
                f"--run_dir={self.path}: expected the folder of a run; found {self.state.value}"
            )
        if not self.config.exists():
            raise ConfigError(f"--run_dir={self.path}: expected {self.config.name} in it; found none")
        return command_line.read([f"--flagfile={self.config}"]).replace(run_dir=str(self.path))

    def record_data(self, fingerprint: str) -> None:
        """Records which data the run is trained on, or compares them with those that it began with.

        Raises:
            ConfigError: they are others.
        """
        recorded = json.loads(self.environment.read_text(encoding="utf-8"))
        before = recorded.setdefault("data_fingerprint", fingerprint)
        if before != fingerprint:
            raise ConfigError(
                f"--run_dir={self.path}: the data set has changed since the run began; expected the "
                f"fingerprint {before[:12]}…, found {fingerprint[:12]}…; --overwrite begins anew"
            )
        files.write_text(self.environment, json.dumps(recorded, indent=2) + "\n")

    def embeddings(self, part: str) -> Path:
        """The file with the embeddings of a part of the data: test, test_gallery or training."""
        return self.path / f"{part}_embeddings.npy"

    def finish(self, results: dict[str, Any], table: str | None = None) -> None:
        """Writes `results.json`, with which the run is finished, and before it `results.csv` if given."""
        if table is not None:
            files.write_text(self.table, table)
        files.write_text(self.results, json.dumps(results, indent=2) + "\n")

    def read_results(self) -> dict[str, Any]:
        """The content of `results.json`.

        Raises:
            UserError: the run is not finished, or the file is damaged.
        """
        if self.state is not State.FINISHED:
            raise UserError(f"--run_dir={self.path}: expected a finished run; found {self.state.value}")
        try:
            results: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.results}: expected the results of a run: {error}") from None
        return results

    def _continues(self, config: ExperimentConfig) -> bool:
        """Whether a run with this configuration, having passed `check`, goes on with the one that is here."""
        if self.state is not State.UNFINISHED or not self.config.exists():
            return False
        if not config.run.overwrite:
            return True
        return self._began_with_overwrite() and not self._changed_flags(config)

    def _write_beginning(self, config: ExperimentConfig) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            files.write_text(self._marker, json.dumps({"overwrite": config.run.overwrite}) + "\n")
            recorded = {"command": sys.argv, "versions": environment.versions(), **environment.revision()}
            files.write_text(self.environment, json.dumps(recorded, indent=2) + "\n")
            self._write_config(config)
        except OSError as error:
            raise ConfigError(f"--run_dir={self.path}: cannot be written: {error.strerror}") from None

    def _write_config(self, config: ExperimentConfig) -> None:
        files.write_text(self.config, flagfiles.to_flagfile(config.replace(run_dir=None, overwrite=False)))

    def _clear(self) -> None:
        """Deletes what a run wrote; the marker goes last, so that an interrupted deletion can be repeated."""
        self.results.unlink(missing_ok=True)
        for member in self.path.glob(_MEMBERS):
            RunDirectory(member)._remove()
        for folder in (self.saved_model, self.tensorboard, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
        embeddings = [self.embeddings(part) for part in EMBEDDED_SETS]
        for file in (self.table, self.metrics, self.environment, self.config, *embeddings):
            file.unlink(missing_ok=True)

    def _remove(self) -> None:
        """Deletes a run of a group, and its folders if nothing else is in them."""
        if not self._marker.exists():
            return
        self._clear()
        self._marker.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()
            self.path.parent.rmdir()

    def _check_same_flags(self, config: ExperimentConfig) -> None:
        for name, (before, now) in self._changed_flags(config).items():
            raise ConfigError(
                f"--{name}={_shown(now)}: the unfinished run in {self.path} has {_shown(before)}; "
                "expected the same flags to continue it, another --run_dir, or --overwrite"
            )

    def _changed_flags(
        self, config: ExperimentConfig, unless: tuple[Change, ...] = tuple(Change)
    ) -> dict[str, tuple[Any, Any]]:
        """Flags whose value differs from the run's that is here, with both, unless that is allowed."""
        before = {flag.name: value for flag, value in self.read_config().items()}
        return {
            flag.name: (before[flag.name], now)
            for flag, now in config.items()
            if before[flag.name] != now
            and not (flag.change in unless and flag.change.allows(before[flag.name], now))
        }

    def _began_with_overwrite(self) -> bool:
        try:
            return bool(json.loads(self._marker.read_text(encoding="utf-8"))["overwrite"])
        except (OSError, ValueError, KeyError, TypeError):
            return False


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
