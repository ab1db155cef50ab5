"""The folder of a run: its files, and the rules for beginning, continuing and replacing a run in it."""

from __future__ import annotations

import contextlib
import enum
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccp_dml import environment, files
from ccp_dml.config import ExperimentConfig, command_line, flagfiles
from ccp_dml.errors import ConfigError, UserError
from ccp_dml.models.backbones import registry as backbones
from ccp_dml.options import Change

_MARKER = ".ccp_dml_run"
# Number of the format of run directories, in the marker; version 0.1.0 wrote none.
_FORMAT = 2
# Files of a process that was killed before it had written the marker.
_BEFORE_MARKER = (files.LOCK, files.LOCK_HOLDER, files.partial(Path(_MARKER)).name)
# Folders of the runs of a group.
_MEMBERS = "fold_*/repeat_*"
_MEMBER = re.compile(r"fold_\d+/repeat_\d+")
# Last line of config.cfg, a comment.
_CHECKSUM = "# sha256: "
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
            if not self._marker.exists():
                return State.FOREIGN
            if self._read_marker().get("format") != _FORMAT:
                return State.OTHER_FORMAT
            return State.FINISHED if self.results.exists() else State.UNFINISHED
        except OSError as error:
            raise ConfigError(f"--run_dir={self.path}: expected a folder: {error.strerror}") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the folder for this process, also against a process that works in the group of the run.

        Raises:
            ConfigError: if another process works there, or the folder cannot be written to.
        """
        *_, fold, repeat = ("", "", *self.path.resolve().parts)
        group = self.path.resolve().parent.parent if _MEMBER.fullmatch(f"{fold}/{repeat}") else None
        if group is not None and not (group / files.LOCK).exists():
            group = None
        with files.run_lock(self.path, group):
            yield

    def check(self, config: ExperimentConfig, *, writes: bool = True) -> None:
        """Raises `ConfigError` if a run may not use the folder; changes nothing.

        Args:
            config: configuration of the run.
            writes: True if this process is going to write into the folder.
        """
        absolute = self.path.absolute()
        existing = next(path for path in (absolute, *absolute.parents) if os.path.exists(path))
        if not existing.is_dir() or (writes and not os.access(existing, os.W_OK | os.X_OK)):
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
        if state is State.FINISHED and not self._is_longer(config):
            raise ConfigError(
                f"--run_dir={self.path}: it holds a finished run; expected another folder, or --overwrite"
            )
        try:
            is_continued = state is State.FINISHED or (state is State.UNFINISHED and self._has_begun())
        except ConfigError as error:
            raise ConfigError(f"{error}; --overwrite begins anew") from None
        if is_continued:
            self._check_same_flags(config, state)

    def holds_finished(self, config: ExperimentConfig) -> bool:
        """Returns True if the folder holds a finished run with this configuration.

        Raises:
            ConfigError: if it holds a finished run with other flags, a smaller number of epochs excepted.
        """
        if self.state is not State.FINISHED or self._is_longer(config):
            return False
        self._check_same_flags(config, State.FINISHED, unless=(Change.FREE,))
        return True

    def begin(self, config: ExperimentConfig) -> bool:
        """Prepares the folder for a new run, or for continuing one.

        The same command always continues an unfinished run, even with --overwrite, if the run began with it;
        --overwrite replaces any other run. A larger number of epochs continues a finished run, whose results
        stay until there are new ones.

        Returns:
            True if a run is continued.

        Raises:
            ConfigError: see `check`.
        """
        self.check(config)
        if self._continues(config):
            self.check_backbone(config)
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
        try:
            content, mark, checksum = self.config.read_text(encoding="utf-8").rpartition(_CHECKSUM)
        except OSError as error:
            raise self._unusable(self.config, str(error.strerror)) from None
        except UnicodeDecodeError:
            raise self._unusable(self.config, "it is damaged, as it is not text in UTF-8") from None
        if not mark or checksum.strip() != files.checksum(content):
            raise self._unusable(self.config, "it was damaged or changed, as its checksum does not match")
        # `Path` has dropped the "./" of "./~x", which is no home folder.
        run_dir = os.path.join(os.curdir, self.path)
        return command_line.read([f"--flagfile={run_dir}/{self.config.name}"]).replace(run_dir=run_dir)

    def record_data(self, fingerprint: str) -> None:
        """Records the fingerprint of the data, or compares it with the one recorded when the run began.

        Raises:
            ConfigError: if they differ.
        """
        recorded = self._read_environment()
        if "data_fingerprint" in recorded:
            self.check_data(fingerprint)
        else:
            files.write_json(self.environment, {**recorded, "data_fingerprint": fingerprint})

    def check_data(self, fingerprint: str) -> None:
        """Raises `ConfigError` unless the data are those with which the run began."""
        before = str(self._read_environment().get("data_fingerprint", "none"))
        if before != fingerprint:
            raise ConfigError(
                f"--run_dir={self.path}: the data set has changed since the run began; expected the "
                f"fingerprint {before[:12]}…, found {fingerprint[:12]}…; --overwrite in training begins anew"
            )

    def check_backbone(self, config: ExperimentConfig) -> None:
        """Raises `ConfigError` unless the user's own backbone is the one with which the run began."""
        name, before = config.model.backbone, self._read_environment().get("backbone")
        written = f"--run_dir={self.path}: --backbone={name}"
        try:
            now = backbones.source_of(name)
        except ValueError as error:
            known = f"; the run began with {before['file']}" if before else ""
            raise ConfigError(f"{written}: {error}{known}") from None
        if before is not None and now is not None and before["sha256"] != now["sha256"]:
            raise ConfigError(
                f"{written}: {now['file']} is not what the run began with, as its checksum differs; "
                f"expected the content that {before['file']} had, or --overwrite in training"
            )

    def embeddings(self, name: str) -> Path:
        """Returns the file of the embeddings of a set of images: test, test_gallery or training."""
        return self.path / f"{name}_embeddings.npy"

    def finish(self, results: dict[str, Any], table: str | None = None) -> None:
        """Finishes the run: writes `results.csv`, if a table is given, and then `results.json`.

        The checksums of the files of embeddings are among the results.
        """
        if table is not None:
            files.write_text(self.table, table)
        found = [file for file in map(self.embeddings, EMBEDDED_SETS) if file.exists()]
        checksums = {file.name: files.checksum(file.read_bytes()) for file in found}
        files.write_json(self.results, {**results, **({"checksums": checksums} if checksums else {})})

    def read_results(self) -> dict[str, Any]:
        """Reads `results.json`.

        Raises:
            UserError: if the run is not finished, or the file is damaged.
        """
        if self.state is not State.FINISHED:
            raise UserError(f"--run_dir={self.path}: expected a finished run; found {self._content}")
        try:
            return files.read_json(self.results)
        except ValueError as error:
            raise UserError(
                f"{self.results}: expected the results of a run: {error}; without the file, the command that "
                "trained the run writes it again"
            ) from None

    @property
    def _content(self) -> str:
        """The content of the folder, for messages."""
        if self.state is not State.OTHER_FORMAT:
            return self.state.value
        version = "a newer version" if "format" in self._read_marker() else "version 0.1.0"
        return f"a run of {version}, which only that version can use"

    def _continues(self, config: ExperimentConfig) -> bool:
        """Returns True if a run that has passed `check` continues the run in the folder."""
        if self.state is State.FINISHED:
            return not config.run.overwrite
        if self.state is not State.UNFINISHED:
            return False
        if not config.run.overwrite:
            return self._has_begun()
        try:
            began_with_it = self._has_begun() and self._read_marker().get("overwrite")
            return bool(began_with_it) and not self._changed_flags(config)
        except ConfigError:  # What cannot be continued is replaced.
            return False

    def _is_longer(self, config: ExperimentConfig) -> bool:
        """Returns True if a configuration has more epochs than the finished run in the folder."""
        before = self.read_results().get("config", {}).get("max_epochs")
        return isinstance(before, int) and config.training.max_epochs > before

    def _has_begun(self) -> bool:
        """Returns False if the unfinished run was killed before its flags were on the disk.

        Raises:
            ConfigError: if the run went further, but its flags or its record of the environment are damaged.
        """
        if not os.path.lexists(self.config) and not any(map(os.path.lexists, self._products)):
            return False
        self.read_config()
        self._read_environment()
        return True

    @property
    def _products(self) -> list[Path]:
        """The files and folders of a run, and of the runs of a group, except those of its beginning."""
        folders = [self.saved_model, self.tensorboard, self.checkpoints, *self.path.glob(_MEMBERS)]
        return [self.results, self.table, self.metrics, *map(self.embeddings, EMBEDDED_SETS), *folders]

    def _read_environment(self) -> dict[str, Any]:
        try:
            return files.read_json(self.environment)
        except ValueError as error:
            raise self._unusable(self.environment, str(error)) from None

    def _unusable(self, file: Path, reason: str) -> ConfigError:
        return ConfigError(
            f"--run_dir={self.path}: {file.name} cannot be used: {reason}; expected it as the run wrote it"
        )

    def _write_beginning(self, config: ExperimentConfig) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            marker = {"format": _FORMAT, "overwrite": config.run.overwrite}
            files.write_text(self._marker, json.dumps(marker) + "\n")
            recorded = {"command": sys.argv, "versions": environment.versions(), **environment.revision()}
            source = backbones.source_of(config.model.backbone)
            if source is not None:
                recorded["backbone"] = source
            files.write_json(self.environment, recorded)
            self._write_config(config)
        except OSError as error:
            raise ConfigError(f"--run_dir={self.path}: cannot be written: {error.strerror}") from None

    def _write_config(self, config: ExperimentConfig) -> None:
        content = flagfiles.to_flagfile(config.replace(run_dir=None, overwrite=False))
        files.write_text(self.config, f"{content}{_CHECKSUM}{files.checksum(content)}\n")

    def _clear(self) -> None:
        """Deletes the files of a run, but not the marker, so that an interrupted deletion can be repeated."""
        for product in self._products:
            if product.match(_MEMBERS):
                RunDirectory(product)._remove()
            else:
                files.remove(product)
        for file in (self.config, self.environment):
            files.remove(file)

    def _remove(self) -> None:
        """Deletes a run of a group, and its folders if they are empty."""
        if not self._marker.exists():
            return
        with files.run_lock(self.path):
            self._clear()
            self._marker.unlink()
        with contextlib.suppress(OSError):
            self.path.parent.rmdir()

    def _check_same_flags(
        self, config: ExperimentConfig, state: State, unless: tuple[Change, ...] = tuple(Change)
    ) -> None:
        found = "finished" if state is State.FINISHED else "unfinished"
        for name, (before, now) in self._changed_flags(config, unless).items():
            raise ConfigError(
                f"--{name}={_shown(now)}: the {found} run in {self.path} has {_shown(before)}; "
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
            return files.read_json(self._marker)
        except ValueError:
            return {}


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
