"""Prepared data: TFDS data sets as ArrayRecord files, and random access to their records."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import mmap
import os
import pathlib
import shutil
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ccp_dml import files
from ccp_dml.data.collection import ImageCollection, ImageDataset, SkippedImage
from ccp_dml.data.random_streams import IntArray
from ccp_dml.errors import UserError

_RECORDS_AT_A_TIME = 1024
_LARGEST_HASHED_FILE = 2**26
# Threads that ArrayRecord starts, and address space for them and what follows.
_THREADS, _RESERVED_BYTES = 64, 2**28
_CLASS_NAMES, _CHECKSUMS = "class_names.json", "checksums.json"


def default_prepared_dir() -> str:
    """Returns the default folder of prepared data: `TFDS_DATA_DIR`, else a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("TFDS_DATA_DIR") or os.path.join(cache, "ccp_dml")


def workspace(prepared_dir: str | os.PathLike[str], builder_name: str) -> pathlib.Path:
    """Returns the folder in which a builder writes, before complete data are moved to `prepared_dir`."""
    return pathlib.Path(prepared_dir).expanduser().absolute() / f".{builder_name}.incomplete"


def load_prepared(name: str, builder: Any, prepared_dir: str | os.PathLike[str]) -> ImageDataset:
    """Opens a data set, after preparing it if necessary.

    Args:
        name: name of the data set.
        builder: TFDS builder whose `data_dir` is its `workspace`; with the features `image`, `label`
            (ClassLabel), `image_id` and perhaps `box`; and with the splits `train` and either `test` or
            `query` and `gallery`, or one of the first two alone; and perhaps `validation`.
        prepared_dir: folder of prepared data.

    Returns:
        The data set. Images are in the order of their ids. Classes keep their order; those without images in
        a split are left out.

    Raises:
        UserError: if prepared data are damaged.
        ValueError: if a split is missing or empty, or the builder cannot use its source.
    """
    return open_prepared(name, *prepare(name, builder, prepared_dir))


def prepare(name: str, builder: Any, prepared_dir: str | os.PathLike[str]) -> tuple[Any, tuple[str, ...]]:
    """Prepares a data set, unless that was done before, and checks its files; see `load_prepared`.

    A folder gets its name when all of its files are on the disk.

    Returns:
        A read-only TFDS builder of the prepared data, and the names of the classes.

    Raises:
        UserError: if prepared data are damaged.
    """
    import tensorflow_datasets as tfds

    _check_threads()
    staged = pathlib.Path(builder.data_path)
    working = workspace(prepared_dir, builder.name)
    folder = working.parent / staged.relative_to(working)
    if not os.path.lexists(folder):
        print(f"Preparing the data set {name} in {folder} (once) …", file=sys.stderr, flush=True)
        # The caller holds the lock of the data set: what is there was left by a killed process.
        shutil.rmtree(working, ignore_errors=True)
        try:
            _build(name, builder, working.parent)
            folder.parent.mkdir(parents=True, exist_ok=True)
            files.to_disk(staged)
            files.rename(staged, folder)
        finally:
            shutil.rmtree(working, ignore_errors=True)
    check_files(folder)
    # TFDS strips the names of classes that it reads.
    names = json.loads((folder / _CLASS_NAMES).read_text(encoding="utf-8"))
    return tfds.builder_from_directory(folder), tuple(names)


@functools.cache
def _check_threads() -> None:
    """Raises `UserError` unless the threads of ArrayRecord can be started; it would wait for them forever."""
    go_on = threading.Event()
    threads = [threading.Thread(target=go_on.wait) for _ in range(_THREADS)]
    started = []
    try:
        # Beside their stacks, threads need memory of the allocator. Pages that are not touched cost nothing.
        with mmap.mmap(-1, _RESERVED_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            for thread in threads:
                thread.start()
                started.append(thread)
    except (RuntimeError, OSError, MemoryError) as error:
        raise UserError(
            f"{_THREADS} threads to read prepared data cannot be started ({_reason(error)}); "
            "raise the limit of address space (ulimit -v) or of processes (ulimit -u)"
        ) from error
    finally:
        go_on.set()
        for thread in started:
            thread.join()


def _build(name: str, builder: Any, prepared_dir: pathlib.Path) -> None:
    """Writes the records, the index of each split, the names of the classes and the checksums."""
    import tensorflow_datasets as tfds

    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    config = tfds.download.DownloadConfig(force_checksums_validation=True)
    with _quiet():
        builder.download_and_prepare(
            file_format="array_record", download_config=config, download_dir=prepared_dir / "downloads"
        )
    write_index(name, builder)
    write_checksums(pathlib.Path(builder.data_path))


def write_index(name: str, builder: Any) -> None:
    """Writes files that spare the reading of all records: names of classes, labels, image ids and boxes."""
    folder = pathlib.Path(builder.data_path)
    class_names = list(builder.info.features["label"].names)
    (folder / _CLASS_NAMES).write_text(json.dumps(class_names), encoding="utf-8")
    for split in builder.info.splits:
        if builder.info.splits[split].num_examples:
            index = _read_index(_open(name, builder, split), "box" in builder.info.features)
            np.save(_index_file(folder, split), index)


def write_checksums(folder: pathlib.Path) -> None:
    """Writes the size and checksum of every file of a folder, which `check_files` compares."""
    states = {path.name: _state(path) for path in sorted(folder.iterdir())}
    (folder / _CHECKSUMS).write_text(_as_text(states), encoding="utf-8")


def check_files(folder: pathlib.Path) -> None:
    """Compares the files of prepared data with their checksums.

    Of files above 64 MiB, which hold records, only sizes are compared: ArrayRecord has checksums of its own,
    which are compared whenever records are read.

    Raises:
        UserError: if a file is missing or has changed.
    """
    try:
        text = _regular(folder / _CHECKSUMS).read_text(encoding="utf-8")
        states = json.loads(text)
        if text != _as_text(states):
            raise ValueError("another text than was written")
    except Exception as error:  # Damaged JSON leads to errors of many types.
        raise damaged(folder, f"{_CHECKSUMS}: {_reason(error)}") from error
    for name, state in states.items():
        try:
            if _state(folder / name) != state:
                raise ValueError("another content than was written")
        except (OSError, ValueError) as error:
            raise damaged(folder, f"{name}: {_reason(error)}") from error


def _state(path: pathlib.Path) -> dict[str, Any]:
    """Returns the size of a file and, unless it is large, its SHA-256."""
    with _regular(path).open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > _LARGEST_HASHED_FILE:
            return {"bytes": size}
        return {"bytes": size, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def _regular(path: pathlib.Path) -> pathlib.Path:
    """Returns the path of a file; raises `ValueError` for all else, such as a pipe, which might never end."""
    if not path.is_file():
        raise ValueError("no file")
    return path


def _as_text(states: dict[str, Any]) -> str:
    return json.dumps(states, indent=1, sort_keys=True) + "\n"


def damaged(folder: pathlib.Path, reason: str) -> UserError:
    """Returns the error of prepared data that cannot be read."""
    return UserError(
        f"{folder}: the prepared data are damaged or were removed ({reason}); "
        "delete the folder, and they are prepared again"
    )


def _reason(error: Exception) -> str:
    reason = (isinstance(error, OSError) and error.strerror) or str(error)
    return reason.split("\n")[0] or type(error).__name__


def open_prepared(name: str, builder: Any, class_names: Sequence[str]) -> ImageDataset:
    """Opens prepared data; see `load_prepared`.

    Args:
        name: name of the data set.
        builder: builder of the prepared data.
        class_names: names of all classes of all splits.
    """
    roles = ("query", "gallery") if "gallery" in builder.info.splits else ("test",)
    # A folder whose classes all train, or all test, has one split.
    only = next(iter(builder.info.splits)) if len(builder.info.splits) == 1 else None
    records = {split: _open(name, builder, split) for split in ("train", *roles) if only in (None, split)}
    of_roles = {role: records[role] for role in roles if role in records}
    test = _collections(builder, class_names, of_roles) if of_roles else {}
    train = _collections(builder, class_names, {"train": records["train"]}) if "train" in records else {}
    validation = None
    if "validation" in builder.info.splits:
        records["validation"] = _open(name, builder, "validation")
        validation = _collections(builder, class_names, {"validation": records["validation"]})["validation"]
    nothing = next(iter({**test, **train}.values())).subset([])
    skipped = (builder.info.metadata or {}).get("skipped_images", ())
    return ImageDataset(
        name,
        train.get("train", nothing),
        test.get(roles[0], nothing),
        test.get("gallery"),
        tuple(SkippedImage(**entry) for entry in skipped),
        validation,
    )


class PreparedRecords:
    """The encoded images of one split, read from its ArrayRecord files."""

    def __init__(self, data_source: Any, folder: pathlib.Path):
        """Wraps a TFDS data source that does not decode images (`SkipDecoding`), and its folder."""
        self._data_source, self._folder = data_source, folder

    def __len__(self) -> int:
        return len(self._data_source)

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records.

        Raises:
            UserError: if they cannot be read because the folder was removed or damaged.
        """
        return [record["image"] for record in self.records(rows)]

    def records(self, rows: Sequence[int]) -> list[Any]:
        """Returns the given records; raises like `encoded`."""
        try:
            found = self._data_source.__getitems__(list(rows))
        except Exception as error:  # ArrayRecord raises errors of several types.
            raise damaged(self._folder, _reason(error)) from error
        # ArrayRecord returns empty records where a file ends too early.
        if not all(record["image"] for record in found):
            raise damaged(self._folder, "records are missing")
        return found


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses the output and log messages of TFDS, except progress bars, warnings and errors."""
    from absl import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity(min(verbosity, logging.WARNING))
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def _open(name: str, builder: Any, split: str) -> PreparedRecords:
    import tensorflow_datasets as tfds

    found = builder.info.splits
    if split not in found or not found[split].num_examples:
        raise ValueError(
            f"data set {name}: split '{split}' has no images; found {', '.join(found) or 'no split'}"
        )
    with _quiet():
        data_source = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return PreparedRecords(data_source, pathlib.Path(builder.data_path))


def _collections(
    builder: Any, class_names: Sequence[str], records: dict[str, PreparedRecords]
) -> dict[str, ImageCollection]:
    """Returns the collections of splits that share the numbering of their classes."""
    folder = pathlib.Path(builder.data_path)
    columns = {split: np.load(_index_file(folder, split), allow_pickle=False) for split in records}
    present = np.unique(np.concatenate([labels for labels, *_ in columns.values()]))
    collections = {}
    for split, (labels, image_ids, *boxes) in columns.items():
        rows = np.argsort(image_ids, kind="stable")
        collections[split] = ImageCollection(
            labels=np.searchsorted(present, labels[rows]),
            class_names=tuple(class_names[label] for label in present),
            image_ids=image_ids[rows],
            source=records[split],
            rows=rows,
            boxes=np.stack(boxes, 1)[rows] if boxes else None,
        )
    return collections


def _index_file(folder: pathlib.Path, split: str) -> pathlib.Path:
    return folder / f"index-{split}.npy"


def _read_index(records: PreparedRecords, with_boxes: bool) -> IntArray:
    """Reads the labels, the image ids and perhaps the four columns of boxes, int64 [2 or 6, N]."""
    columns = []
    for begin in range(0, len(records), _RECORDS_AT_A_TIME):
        for record in records.records(range(begin, min(begin + _RECORDS_AT_A_TIME, len(records)))):
            columns.append([record["label"], record["image_id"], *(record["box"] if with_boxes else ())])
    return np.array(columns, np.int64).T
