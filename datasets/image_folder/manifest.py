"""The file `manifest.csv`, which lists the class and the split of each image of a folder."""

from __future__ import annotations

import csv
import io
import os
import pathlib
import posixpath
from collections.abc import Iterator

from ccp_dml.datasets.common.source_files import read_file
from ccp_dml.datasets.image_folder.entries import SPLITS, Entry, LayoutError, check_name

FILE_NAME = "manifest.csv"
COLUMNS = ("file", "label", "split")
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars", " ": "blanks"}


def read(root: pathlib.Path) -> list[Entry]:
    """Reads the images that a manifest lists, and sorts them by split, class and file.

    The manifest is CSV in UTF-8 with a header. Of its columns, `file` (path relative to the folder, with
    forward slashes), `label` (one line of text) and `split` (`train`, `validation`, `test`, `query` or
    `gallery`) are read. Blank lines are skipped. Files that do not exist are reported when images are read.

    Args:
        root: the folder that holds the manifest and the images.

    Raises:
        LayoutError: if a column or value is missing, a split is unknown, or a file is outside the folder or
            listed twice; the message names the line.
    """
    path = root / FILE_NAME
    entries: list[Entry] = []
    lines: dict[str, int] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        entry = _entry(root, row, where)
        if entry.file in lines:
            raise LayoutError(f"{where}: {entry.file!r} is already on line {lines[entry.file]}")
        lines[entry.file] = line
        entries.append(entry)
    if not entries:
        raise LayoutError(f"{path} lists no images")
    return sorted(entries, key=lambda entry: (SPLITS.index(entry.split), entry.label, entry.file))


def _rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields the number of the last line of each row, and its values by column."""
    try:
        # Spreadsheets begin UTF-8 with a byte order mark.
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LayoutError(f"{path} is not text in UTF-8") from None
    except OSError as error:
        raise LayoutError(f"{path} cannot be read ({error.strerror})") from None
    _check_separator(path, text.split("\n", 1)[0])
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        for name in COLUMNS:
            if columns.count(name) != 1:
                found = ", ".join(columns) or "none"
                raise LayoutError(f"{path} has the columns {found}; expected {', '.join(COLUMNS)} once each")
        for row in reader:
            if row:
                yield reader.line_num, dict(zip(columns, row))
    except csv.Error as error:
        raise LayoutError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _check_separator(path: pathlib.Path, header: str) -> None:
    """Raises `LayoutError` if other characters than commas separate the columns of a header."""
    for separator, name in _OTHER_SEPARATORS.items():
        if {column.strip(' \r"') for column in header.split(separator)} >= set(COLUMNS):
            found = header.strip()
            raise LayoutError(f"{path} has the columns {found}, separated by {name}; expected commas")


def _entry(root: pathlib.Path, row: dict[str, str], where: str) -> Entry:
    for name in COLUMNS:
        if not row.get(name, "").strip():
            raise LayoutError(f"{where}: the {name} is missing")
    file, label, split = row["file"], row["label"].strip(), row["split"].strip()
    if split not in SPLITS:
        raise LayoutError(f"{where}: unknown split {split!r}; expected {', '.join(SPLITS)}")
    check_name(label, where)
    check_name(file, where)
    if "\\" in file and not os.path.exists(root / file):
        raise LayoutError(f"{where}: {file!r} does not exist; expected forward slashes between folders")
    file = posixpath.normpath(file)
    if file.startswith(("/", "../")) or file == "..":
        raise LayoutError(
            f"{where}: {row['file']!r} is not below {root}; expected a path relative to that folder"
        )
    if file == ".":
        raise LayoutError(f"{where}: {row['file']!r} is the folder itself; expected a file in it")
    return Entry(file, label, split)
