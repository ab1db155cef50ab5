"""Image collections from a TFDS builder: preparation as ArrayRecord, and random access to its records."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ccp_dml.data.collection import ImageCollection, ImageDataset, from_metadata
from ccp_dml.data.random_streams import IntArray
from ccp_dml.errors import UserError

_CHUNK = 1024


def default_prepared_dir() -> str:
    """Where prepared data goes: `TFDS_DATA_DIR`, else a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("TFDS_DATA_DIR") or os.path.join(cache, "ccp_dml")


def load_prepared(name: str, builder: Any) -> ImageDataset:
    """Prepares a data set unless that was done before, and opens it.

    Args:
        name: name of the data set.
        builder: TFDS builder with `file_format="array_record"` and the features `image`, `label` (ClassLabel)
            and `image_id`, perhaps `box`; splits `train` and either `test` or `query` and `gallery`.

    Returns:
        The data set. Images are in the order of `image_id`; classes keep their order, without those that a
        split does not have.

    Raises:
        ValueError: if a split is missing or empty, or what the builder raises for a source it cannot use.
    """
    prepare(name, builder)
    roles = ("query", "gallery") if "gallery" in builder.info.splits else ("test",)
    sources = {split: _open(name, builder, split) for split in ("train", *roles)}
    names = tuple(builder.info.features["label"].names)
    train = _collections(names, builder, {"train": sources["train"]})
    test = _collections(names, builder, {role: sources[role] for role in roles})
    skipped = from_metadata(builder.info.metadata)
    return ImageDataset(name, train["train"], test[roles[0]], test.get("gallery"), skipped)


class PreparedRecords:
    """Encoded images of one split, read from its ArrayRecord files."""

    def __init__(self, data_source: Any, folder: pathlib.Path):
        """Wraps a TFDS data source whose images are not decoded (`SkipDecoding`) and its folder."""
        self.data_source = data_source
        self._folder = folder

    def __len__(self) -> int:
        return len(self.data_source)

    def encoded(self, rows: Sequence[int]) -> list[bytes]:
        """Returns the images of the given records.

        Raises:
            UserError: if they cannot be read: the folder was removed or damaged.
        """
        return [record["image"] for record in self.records(rows)]

    def records(self, rows: Sequence[int]) -> list[Any]:
        """Returns the given records; raises as `encoded` does."""
        try:
            found = self.data_source.__getitems__(list(rows))
        except Exception as error:  # ArrayRecord's own, of several types.
            raise self._damaged(str(error).split("\n")[0]) from error
        # Where its file ends too early, ArrayRecord gives records of nothing.
        if not all(record["image"] for record in found):
            raise self._damaged("records are missing")
        return found

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self._folder}: the prepared data are damaged or were removed ({reason}); "
            "delete the folder, and they are prepared again"
        )


def prepare(name: str, builder: Any) -> None:
    """Prepares a data set unless that was done before; see `load_prepared`."""
    folder = pathlib.Path(builder.data_path)
    if folder.exists():
        return
    import tensorflow_datasets as tfds

    # What a killed process left behind: whoever prepares holds the lock, so nobody is writing there.
    for unfinished in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    print(f"Preparing the data set {name} in {folder} (once) …", file=sys.stderr, flush=True)
    config = tfds.download.DownloadConfig(force_checksums_validation=True)
    with _quiet():
        builder.download_and_prepare(file_format="array_record", download_config=config)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back what TFDS prints and logs, other than progress bars, warnings and errors."""
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
    names: tuple[str, ...], builder: Any, sources: dict[str, PreparedRecords]
) -> dict[str, ImageCollection]:
    """Collections whose classes are those that occur in any of the given splits."""
    folder, with_boxes = pathlib.Path(builder.data_path), "box" in builder.info.features
    index = {split: _index(folder, split, source, with_boxes) for split, source in sources.items()}
    present = np.unique(np.concatenate([columns[0] for columns in index.values()]))
    collections = {}
    for split, (labels, image_ids, *boxes) in index.items():
        rows = np.argsort(image_ids, kind="stable")
        collections[split] = ImageCollection(
            labels=np.searchsorted(present, labels[rows]),
            class_names=tuple(names[label] for label in present),
            image_ids=image_ids[rows],
            source=sources[split],
            rows=rows,
            boxes=np.stack(boxes, 1)[rows] if boxes else None,
        )
    return collections


def _index(folder: pathlib.Path, split: str, source: PreparedRecords, with_boxes: bool) -> IntArray:
    """Labels, image ids and, if there are any, the four sides of the boxes of all records, int64 [2 or 6, N].

    Kept beside the data: reading them reads every image.
    """
    file = folder / f"index-{split}.npy"
    with contextlib.suppress(OSError, ValueError):
        kept = np.load(file, allow_pickle=False)
        if kept.shape == (6 if with_boxes else 2, len(source)):
            return kept
    columns = []
    for begin in range(0, len(source), _CHUNK):
        rows = range(begin, min(begin + _CHUNK, len(source)))
        for record in source.records(rows):
            columns.append([record["label"], record["image_id"], *(record["box"] if with_boxes else ())])
    index = np.array(columns, np.int64).T
    with contextlib.suppress(OSError):
        _write(file, index)
    return index


def _write(file: pathlib.Path, array: IntArray) -> None:
    """Writes an array so that a reader finds all of it or nothing."""
    descriptor, unfinished = tempfile.mkstemp(suffix=".tmp", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            np.save(stream, array)
        os.replace(unfinished, file)
    except BaseException:
        pathlib.Path(unfinished).unlink(missing_ok=True)
        raise
