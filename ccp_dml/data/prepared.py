"""Prepared data: TFDS data sets as ArrayRecord files, and random access to their records."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ccp_dml.data.collection import ImageCollection, ImageDataset, SkippedImage
from ccp_dml.data.random_streams import IntArray
from ccp_dml.errors import UserError

_RECORDS_AT_A_TIME = 1024


def default_prepared_dir() -> str:
    """Returns the default folder of prepared data: `TFDS_DATA_DIR`, else a folder in the user's cache."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.environ.get("TFDS_DATA_DIR") or os.path.join(cache, "ccp_dml")


def load_prepared(name: str, builder: Any) -> ImageDataset:
    """Opens a data set, after preparing it if necessary.

    Args:
        name: name of the data set.
        builder: TFDS builder with `file_format="array_record"`; with the features `image`, `label`
            (ClassLabel), `image_id` and perhaps `box`; and with the splits `train` and either `test` or
            `query` and `gallery`.

    Returns:
        The data set. Images are in the order of their ids. Classes keep their order; those without images in
        a split are left out.

    Raises:
        ValueError: if a split is missing or empty, or the builder cannot use its source.
    """
    prepare(name, builder)
    roles = ("query", "gallery") if "gallery" in builder.info.splits else ("test",)
    records = {split: _open(name, builder, split) for split in ("train", *roles)}
    train = _collections(builder, {"train": records["train"]})
    test = _collections(builder, {role: records[role] for role in roles})
    skipped = (builder.info.metadata or {}).get("skipped_images", ())
    return ImageDataset(
        name,
        train["train"],
        test[roles[0]],
        test.get("gallery"),
        tuple(SkippedImage(**entry) for entry in skipped),
    )


def prepare(name: str, builder: Any) -> None:
    """Prepares a data set, unless that was done before; see `load_prepared`."""
    folder = pathlib.Path(builder.data_path)
    if folder.exists():
        return
    import tensorflow_datasets as tfds

    # Folders of killed processes: the caller holds the lock, so no other process is writing.
    for unfinished in folder.parent.glob(f"incomplete.*_{folder.name}"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    print(f"Preparing the data set {name} in {folder} (once) …", file=sys.stderr, flush=True)
    config = tfds.download.DownloadConfig(force_checksums_validation=True)
    with _quiet():
        builder.download_and_prepare(file_format="array_record", download_config=config)


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
            raise self._damaged(str(error).split("\n")[0]) from error
        # ArrayRecord returns empty records where a file ends too early.
        if not all(record["image"] for record in found):
            raise self._damaged("records are missing")
        return found

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self._folder}: the prepared data are damaged or were removed ({reason}); "
            "delete the folder, and they are prepared again"
        )


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


def _collections(builder: Any, records: dict[str, PreparedRecords]) -> dict[str, ImageCollection]:
    """Returns the collections of splits that share the numbering of their classes."""
    names, with_boxes = builder.info.features["label"].names, "box" in builder.info.features
    folder = pathlib.Path(builder.data_path)
    columns = {
        split: _index(folder / f"index-{split}.npy", found, with_boxes) for split, found in records.items()
    }
    present = np.unique(np.concatenate([labels for labels, *_ in columns.values()]))
    collections = {}
    for split, (labels, image_ids, *boxes) in columns.items():
        rows = np.argsort(image_ids, kind="stable")
        collections[split] = ImageCollection(
            labels=np.searchsorted(present, labels[rows]),
            class_names=tuple(names[label] for label in present),
            image_ids=image_ids[rows],
            source=records[split],
            rows=rows,
            boxes=np.stack(boxes, 1)[rows] if boxes else None,
        )
    return collections


def _index(file: pathlib.Path, records: PreparedRecords, with_boxes: bool) -> IntArray:
    """Returns the labels, the image ids and perhaps the four columns of boxes, int64 [2 or 6, N].

    They are kept in a file beside the data, since reading them from the records reads all images.
    """
    with contextlib.suppress(OSError, ValueError):
        index = np.load(file, allow_pickle=False)
        if index.shape == (6 if with_boxes else 2, len(records)):
            return index
    columns = []
    for begin in range(0, len(records), _RECORDS_AT_A_TIME):
        for record in records.records(range(begin, min(begin + _RECORDS_AT_A_TIME, len(records)))):
            columns.append([record["label"], record["image_id"], *(record["box"] if with_boxes else ())])
    index = np.array(columns, np.int64).T
    unfinished = file.with_suffix(".tmp")
    with contextlib.suppress(OSError):
        with unfinished.open("wb") as stream:
            np.save(stream, index)
        os.replace(unfinished, file)
    return index
