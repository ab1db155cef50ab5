"""The folder of a run: its files, and the rules for beginning, continuing and replacing a run in it."""

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
# Number of the format of run directories, in the marker; version 0.1.0 wrote none.
_FORMAT = 2
# Files of a process that was killed before it had written the marker.
_BEFORE_MARKER = (files.LOCK, files.LOCK_HOLDER, files.partial(Path(_MARKER)).name)
# Folders of the runs of a group.
_MEMBERS = "fold_*/repeat_*"
EMBEDDED_SETS = ("test", "test_gallery", "training")


class State(enum.Enum):
    """The content of a folder."""

    NEW = "nothing"
    UNFINISHED = "a run without results"
    FINISHED = "a run with results"
    OTHER_FORMAT = "a run of another version"
    FOREIGN = "something that is no run"


class RunDirectory:
    """The files of a run, or of a group of runs (folds, repeats) that have folders inside it.

    A marker file identifies a run directory; with `results.json` the run is finished. Only files that a run
    has written are ever deleted.
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
        """Makes the run directory that a configuration names."""
        if config.run.run_dir is None:
            raise ConfigError("--run_dir: expected a folder")
        return cls(config.run.run_dir)

    @property
    def state(self) -> State:
        """The present content of the folder.

        Raises:
            ConfigError: if the path is not a folder, or the folder cannot be read.
        """
        try:
            if not self.path.exists() or all(file.name in _BEFORE_MARKER for file in self.path.iterdir()):
                return State.NEW
        except OSError as error:
            raise ConfigError(f"--run_dir={self.path}: expected a folder: {error.strerror}") from None
        if not self._marker.exists():
            return State.FOREIGN
        if self._read_marker().get("format") != _FORMAT:
            return State.OTHER_FORMAT
        return State.FINISHED if self.results.exists() else State.UNFINISHED

    def check(self, config: ExperimentConfig, *, writes: bool = True) -> None:
        """Raises `ConfigError` if a run may not use the folder; changes nothing.

        Args:
            config: configuration of the run.
            writes: True if this process is going to write into the folder.
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
        if state is State.OTHER_FORMAT:
            raise ConfigError(
                f"--run_dir={self.path}: it holds {self._content}; expected another folder, or --overwrite"
            )
        if state is State.FINISHED:
            raise ConfigError(
                f"--run_dir={self.path}: it holds a finished run; expected another folder, or --overwrite"
            )
        if state is State.UNFINISHED and self.config.exists():
            self._check_same_flags(config)

    def holds_finished(self, config: ExperimentConfig) -> bool:
        """Returns True if the folder holds a finished run with this configuration.

        Raises:
            ConfigError: if it holds a finished run with other flags.
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
        """Prepares the folder for a new run, or for continuing one.

        The same command always continues an unfinished run, even with --overwrite, if the run began with it;
        --overwrite replaces any other run.

        Returns:
            True if an unfinished run is continued.

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
        """Reads the configuration of the run; its `run_dir` is this folder.

        Raises:
            ConfigError: if the folder is not a run directory, or its flagfile cannot be read.
        """
        if self.state not in (State.UNFINISHED, State.FINISHED):
            raise ConfigError(f"--run_dir={self.path}: expected the folder of a run; found {self._content}")
        if not self.config.exists():
            raise ConfigError(f"--run_dir={self.path}: expected {self.config.name} in it; found none")
        return command_line.read([f"--flagfile={self.config}"]).replace(run_dir=str(self.path))

    def record_data(self, fingerprint: str) -> None:
        """Records the fingerprint of the data, or compares it with the one recorded when the run began.

        Raises:
            ConfigError: if they differ.
        """
        recorded = json.loads(self.environment.read_text(encoding="utf-8"))
        before = recorded.setdefault("data_fingerprint", fingerprint)
        if before != fingerprint:
            raise ConfigError(
                f"--run_dir={self.path}: the data set has changed since the run began; expected the "
                f"fingerprint {before[:12]}…, found {fingerprint[:12]}…; --overwrite begins anew"
            )
        files.write_text(self.environment, json.dumps(recorded, indent=2) + "\n")

    def embeddings(self, name: str) -> Path:
        """Returns the file of the embeddings of a set of images: test, test_gallery or training."""
        return self.path / f"{name}_embeddings.npy"

    def finish(self, results: dict[str, Any], table: str | None = None) -> None:
        """Finishes the run: writes `results.csv`, if a table is given, and then `results.json`."""
        if table is not None:
            files.write_text(self.table, table)
        files.write_text(self.results, json.dumps(results, indent=2) + "\n")

    def read_results(self) -> dict[str, Any]:
        """Reads `results.json`.

        Raises:
            UserError: if the run is not finished, or the file is damaged.
        """
        if self.state is not State.FINISHED:
            raise UserError(f"--run_dir={self.path}: expected a finished run; found {self._content}")
        try:
            results: dict[str, Any] = json.loads(self.results.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.results}: expected the results of a run: {error}") from None
        return results

    @property
    def _content(self) -> str:
        """The content of the folder, for messages."""
        if self.state is not State.OTHER_FORMAT:
            return self.state.value
        version = "a newer version" if "format" in self._read_marker() else "version 0.1.0"
        return f"a run of {version}, which only that version can use"

    def _continues(self, config: ExperimentConfig) -> bool:
        """Returns True if a run that has passed `check` continues the unfinished run in the folder."""
        if self.state is not State.UNFINISHED or not self.config.exists():
            return False
        if not config.run.overwrite:
            return True
        return bool(self._read_marker().get("overwrite")) and not self._changed_flags(config)

    def _write_beginning(self, config: ExperimentConfig) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            marker = {"format": _FORMAT, "overwrite": config.run.overwrite}
            files.write_text(self._marker, json.dumps(marker) + "\n")
            recorded = {"command": sys.argv, "versions": environment.versions(), **environment.revision()}
            files.write_text(self.environment, json.dumps(recorded, indent=2) + "\n")
            self._write_config(config)
        except OSError as error:
            raise ConfigError(f"--run_dir={self.path}: cannot be written: {error.strerror}") from None

    def _write_config(self, config: ExperimentConfig) -> None:
        files.write_text(self.config, flagfiles.to_flagfile(config.replace(run_dir=None, overwrite=False)))

    def _clear(self) -> None:
        """Deletes the files of a run, but not the marker, so that an interrupted deletion can be repeated."""
        self.results.unlink(missing_ok=True)
        for member in self.path.glob(_MEMBERS):
            RunDirectory(member)._remove()
        for folder in (self.saved_model, self.tensorboard, self.checkpoints):
            shutil.rmtree(folder, ignore_errors=True)
        embeddings = [self.embeddings(name) for name in EMBEDDED_SETS]
        for file in (self.table, self.metrics, self.environment, self.config, *embeddings):
            file.unlink(missing_ok=True)

    def _remove(self) -> None:
        """Deletes a run of a group, and its folders if they are empty."""
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
        """Flags that differ from those of the run in the folder, with both values, unless that is allowed."""
        before = {flag.name: value for flag, value in self.read_config().items()}
        return {
            flag.name: (before[flag.name], now)
            for flag, now in config.items()
            if before[flag.name] != now
            and not (flag.change in unless and flag.change.allows(before[flag.name], now))
        }

    def _read_marker(self) -> dict[str, Any]:
        """The content of the marker; empty if it is damaged."""
        try:
            marker = json.loads(self._marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return marker if isinstance(marker, dict) else {}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
