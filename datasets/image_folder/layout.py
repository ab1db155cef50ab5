"""Which image of a user's folder belongs to which class and split; needs no TensorFlow and opens no image."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

from datasets.image_folder import manifest
from datasets.image_folder.entries import TEST, TRAIN, Entry, LayoutError, check_splits, list_folder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The images of a folder.

    Attributes:
        source_dir: the folder, as an absolute path.
        entries: all images, in the order of splits, classes and files.
        num_ignored: files in class folders that are no images by their suffix; hidden ones are not counted.
        fingerprint: 16 hexadecimal digits that change with the folder's path and with the name, class, split,
            size or time of change of any image.
    """

    source_dir: pathlib.Path
    entries: tuple[Entry, ...]
    num_ignored: int
    fingerprint: str

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes of all splits, sorted."""
        return tuple(sorted({entry.label for entry in self.entries}))

    @property
    def splits(self) -> Mapping[str, Sequence[Entry]]:
        """The images of each split that has any."""
        splits = collections.defaultdict(list)
        for entry in self.entries:
            splits[entry.split].append(entry)
        return dict(splits)


def read_layout(source_dir: str | os.PathLike[str], train_fraction: float = 0.5) -> Layout:
    """Reads and checks the layout of a folder of images.

    Where the folder has a `manifest.csv`, that says what belongs where (see `manifest.read`). Otherwise each
    sub-folder is a class; of the classes, sorted by name, the first `floor(train_fraction * classes)` train
    and the others test. Names that begin with a dot are passed over. Whether the files exist
    and are images is found out when they are read, for all of them together.

    Args:
        source_dir: the folder.
        train_fraction: share of the classes that train, above 0 and below 1. Of no effect with a manifest.

    Raises:
        LayoutError: one line that names the folder, class or line of the manifest that is wrong.
    """
    if not 0 < train_fraction < 1:
        raise LayoutError(f"train_fraction is {train_fraction}; expected a number above 0 and below 1")
    root = pathlib.Path(source_dir).expanduser().resolve()
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise LayoutError(f"{root} {found}; expected a folder of images")
    manifest_file = root / manifest.FILE_NAME
    if os.path.lexists(manifest_file):
        entries, num_ignored = manifest.read(root), 0
        check_splits(manifest_file, entries)
    else:
        entries, num_ignored = _read_class_folders(root, train_fraction)
        check_splits(root, entries)
    return Layout(root, tuple(entries), num_ignored, _fingerprint(root, entries))


def _read_class_folders(root: pathlib.Path, train_fraction: float) -> tuple[list[Entry], int]:
    names = [found.name for found in list_folder(root) if found.is_dir()]
    if not names:
        raise LayoutError(f"{root} holds no folders; expected one per class, or a {manifest.FILE_NAME}")
    num_train = math.floor(train_fraction * len(names) + 1e-9)  # 0.29 * 100 is 28.999999999999996.
    if not 0 < num_train < len(names):
        raise LayoutError(
            f"{root} holds {len(names)} class folder(s), of which {num_train} would train at train_fraction "
            f"{train_fraction}; expected at least one to train and one to test"
        )
    entries, num_ignored = [], 0
    for index, name in enumerate(names):
        images, others = _read_class(root / name)
        num_ignored += others
        split = TRAIN if index < num_train else TEST
        entries.extend(Entry(f"{name}/{image}", name, split) for image in images)
    return entries, num_ignored


def _read_class(folder: pathlib.Path) -> tuple[list[str], int]:
    """Returns the sorted names of a class's images, and how many other files there are."""
    images, others = [], 0
    for found in list_folder(folder):
        # What is named like an image and is none is reported with all others when images are read.
        if found.name.lower().endswith(IMAGE_SUFFIXES):
            images.append(found.name)
        elif found.is_dir():
            raise LayoutError(
                f"{folder} holds the folder {found.name!r}; expected a class folder of images only"
            )
        else:
            others += 1
    if not images:
        raise LayoutError(
            f"class folder {folder} holds no image; expected files in {', '.join(IMAGE_SUFFIXES)}"
        )
    return images, others


def _fingerprint(root: pathlib.Path, entries: Sequence[Entry]) -> str:
    digest = hashlib.sha256(json.dumps(str(root)).encode())
    for entry in entries:
        line = [entry.file, entry.label, entry.split, *_state(f"{root}/{entry.file}")]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]


def _state(file: str) -> tuple[int, int]:
    """Returns size and time of change of a file; of one that is absent, which reading reports, zeros."""
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
