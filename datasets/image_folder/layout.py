"""The classes and splits of a user's folder of images. Needs no TensorFlow and opens no image."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence

from ccp_dml.datasets.image_folder import manifest
from ccp_dml.datasets.image_folder.entries import TEST, TRAIN, Entry, LayoutError, check_name, check_splits

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp")
# Names, in lower case, of files and folders that operating systems, network storage and programs make.
_OF_SYSTEMS = frozenset(
    "__macosx|__pycache__|desktop.ini|thumbs.db|ehthumbs.db|icon\r|lost+found|temporary items|"
    "$recycle.bin|recycler|recycled|system volume information|network trash folder|"
    "@eadir|@tmp|@recycle|@recently-snapshot|#recycle|#snapshot".split("|")
)
_MOST_SUFFIXES = 5


@dataclasses.dataclass(frozen=True)
class Layout:
    """The images of a folder.

    Attributes:
        source_dir: the folder, as an absolute path.
        entries: all images, in the order of splits, classes and files.
        fingerprint: 16 hexadecimal digits that change with the path of the folder and with the name, class,
            split, size, time of modification or time of status change of any image. The last one changes even
            if a file is replaced by one of equal size and its time of modification is set back.
        passed_over: numbers of the other files of a folder without a manifest, by suffix.
    """

    source_dir: pathlib.Path
    entries: tuple[Entry, ...]
    fingerprint: str
    passed_over: Mapping[str, int] = dataclasses.field(default_factory=dict)

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

    def passed_over_in_words(self) -> str | None:
        """Describes the files that are passed over; None if there are none."""
        if not self.passed_over:
            return None
        number = sum(self.passed_over.values())
        files = "1 file is" if number == 1 else f"{number:,} files are"
        return f"{files} passed over: {_listed(self.passed_over)}; images end in {', '.join(IMAGE_SUFFIXES)}"


def _listed(suffixes: Mapping[str, int]) -> str:
    """Returns the numbers of files by suffix, the most frequent first."""
    ordered = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))
    listed = [f"{number:,} {suffix}" for suffix, number in ordered[:_MOST_SUFFIXES]]
    rest = sum(number for _, number in ordered[_MOST_SUFFIXES:])
    return ", ".join(listed + ([f"{rest:,} others"] if rest else []))


def read_layout(
    source_dir: str | os.PathLike[str], train_fraction: float = 0.5, class_order_seed: int | None = None
) -> Layout:
    """Reads and checks the layout of a folder of images.

    If the folder has a `manifest.csv`, classes and splits are read from it (see `manifest.read`). Otherwise
    each sub-folder is a class. Of the classes, sorted by name or in a random order, the first
    `floor(train_fraction * classes)` are for training and the others for testing. Names that begin with a dot
    or that systems use are ignored; other files are counted. Files that are missing or not images are all
    reported when images are read.

    Args:
        source_dir: the folder.
        train_fraction: share of the training classes, 0 to 1; without effect with a manifest.
        class_order_seed: seed of the random order; the place of a class depends on its name and the seed
            alone. None for the order of the names.

    Raises:
        LayoutError: if the folder cannot be used; one line that names the folder, the class, or the line of
            the manifest.
    """
    if not 0 <= train_fraction <= 1:
        raise LayoutError(f"train_fraction is {train_fraction}; expected a number from 0 to 1")
    root = pathlib.Path(source_dir).expanduser().resolve()
    if not root.is_dir():
        found = "is not a folder" if root.exists() else "does not exist"
        raise LayoutError(f"{root} {found}; expected a folder of images")
    manifest_file = root / manifest.FILE_NAME
    passed_over: collections.Counter[str] = collections.Counter()
    if os.path.lexists(manifest_file):
        entries = manifest.read(root)
        check_splits(manifest_file, entries)
    else:
        entries = _read_class_folders(root, train_fraction, class_order_seed, passed_over)
        check_splits(root, entries, may_be_alone=train_fraction in (0, 1))
    return Layout(root, tuple(entries), _fingerprint(root, entries), passed_over)


def _read_class_folders(
    root: pathlib.Path,
    train_fraction: float,
    class_order_seed: int | None,
    passed_over: collections.Counter[str],
) -> list[Entry]:
    """Returns the images of the class folders, and adds the suffixes of all other files to a counter."""
    found = _list_folder(root)
    passed_over.update(f"{_suffix(e.name)} beside the class folders" for e in found if not e.is_dir())
    names = [entry.name for entry in found if entry.is_dir()]
    if not names:
        raise LayoutError(f"{root} holds no folders; expected one per class, or a {manifest.FILE_NAME}")
    num_train = math.floor(train_fraction * len(names) + 1e-9)  # 0.29 * 100 is 28.999999999999996.
    if 0 < train_fraction < 1 and not 0 < num_train < len(names):
        raise LayoutError(
            f"{root} holds {len(names)} class folder(s), of which {num_train} would train at train_fraction "
            f"{train_fraction}; expected at least one to train and one to test"
        )
    order = names
    if class_order_seed is not None:
        order = sorted(names, key=lambda name: hashlib.sha256(f"{class_order_seed}/{name}".encode()).digest())
    training = set(order[:num_train])
    entries = []
    for name in sorted(names, key=lambda name: (name not in training, name)):
        split = TRAIN if name in training else TEST
        images = _read_class(root / name, passed_over)
        entries += [Entry(f"{name}/{image}", name, split) for image in images]
    return entries


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower() or "without suffix"


def _read_class(folder: pathlib.Path, passed_over: collections.Counter[str]) -> list[str]:
    """Returns the sorted names of the images of a class, and adds other suffixes to a counter."""
    images, others = [], collections.Counter[str]()
    for found in _list_folder(folder):
        # A folder with the suffix of an image is reported with all bad images.
        if found.name.lower().endswith(IMAGE_SUFFIXES):
            images.append(found.name)
        elif found.is_dir():
            raise LayoutError(
                f"{folder} holds the folder {found.name!r}; expected a class folder of images only"
            )
        else:
            others[_suffix(found.name)] += 1
    if not images:
        held = f", but {_listed(others)}" if others else ""
        raise LayoutError(
            f"class folder {folder} holds no image{held}; expected files in {', '.join(IMAGE_SUFFIXES)}"
        )
    passed_over += others
    return images


def _list_folder(folder: pathlib.Path) -> list[os.DirEntry]:
    """Returns the entries of a folder by name, without hidden ones and those of systems."""
    try:
        with os.scandir(folder) as found:
            kept = [
                entry
                for entry in found
                if not entry.name.startswith(".") and entry.name.lower() not in _OF_SYSTEMS
            ]
    except OSError as error:
        raise LayoutError(f"{folder} cannot be read ({error.strerror})") from None
    for entry in kept:
        check_name(entry.name, f"{folder}")
    return sorted(kept, key=lambda entry: entry.name)


def _fingerprint(root: pathlib.Path, entries: Sequence[Entry]) -> str:
    digest = hashlib.sha256(json.dumps(str(root)).encode())
    for entry in entries:
        line = [entry.file, entry.label, entry.split, *_state(f"{root}/{entry.file}")]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()[:16]


def _state(file: str) -> tuple[int, ...]:
    """Returns the size and the times of a file; zeros if it is missing, which reading reports."""
    try:
        status = os.stat(file)
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
