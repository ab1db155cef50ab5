"""The files of a source, in folders or in archives, which are read without unpacking them."""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import json
import os
import pathlib
import posixpath
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping

# The largest image that TensorFlow decodes has as many bytes without compression.
MAX_FILE_SIZE = 2**29

_DAMAGES = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
    OSError,
)


class SourceError(ValueError):
    """Files of a data set are missing or not as published; the message names them and what was expected."""


def read_file(path: pathlib.Path) -> bytes:
    """Reads a regular file. Reading a pipe might wait forever, and a device might never end.

    Raises:
        OSError: if it is not a regular file, has more than `MAX_FILE_SIZE` bytes, or cannot be read.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "no regular file")
    if status.st_size > MAX_FILE_SIZE:
        raise OSError(errno.EFBIG, f"{status.st_size:,} bytes; expected at most {MAX_FILE_SIZE:,}")
    return path.read_bytes()


@dataclasses.dataclass(frozen=True)
class Layout:
    """The places of the files of a data set.

    Names of files and folders are relative to the top of the data set, with forward slashes.

    Attributes:
        needed: names of the files and folders without which the data set cannot be read.
        archives: published archives, each with the needed names that it contains.
        folders: folders, relative to the user's, in which files and archives may lie, and prefixes that names
            in archives may have; the first match is used.
    """

    needed: tuple[str, ...]
    archives: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    folders: tuple[str, ...] = ("",)


class SourceFiles:
    """Reads files of a data set by name. Of an archive, only the requested files are read."""

    def __init__(self, source: pathlib.Path, layout: Layout):
        """Looks for the archives of the layout.

        Args:
            source: the folder that holds the files of the data set or its archives, or one archive.
            layout: the files to look for.
        """
        self._source = source
        self.layout = layout
        self._archives = [source] if source.is_file() else list(self._find_archives().values())

    @property
    def missing(self) -> tuple[str, ...]:
        """Needed names that are neither on the disk nor, according to the layout, in an archive found."""
        if self._source.is_file():
            held: set[str] = set(self.layout.archives.get(self._source.name, self.layout.needed))
        else:
            held = {name for archive in self._find_archives() for name in self.layout.archives[archive]}
        return tuple(name for name in self.layout.needed if name not in held and self.locate(name) is None)

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with the path, size or times of change of files and archives.

        A folder counts by itself, without the files in it.
        """
        found = [path for name in self.layout.needed if (path := self.locate(name))] + self._archives
        statuses = [(path, path.stat()) for path in found]
        # The time of status change tells even of a file whose time of modification was set back.
        states = [
            [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns] for path, status in statuses
        ]
        return hashlib.sha256(json.dumps([str(self._source), states]).encode()).hexdigest()[:16]

    def locate(self, name: str) -> pathlib.Path | None:
        """Returns the path of a file or folder on the disk; None if there is none."""
        paths = (self._source / folder / name for folder in self.layout.folders)
        return next((path for path in paths if path.exists()), None)

    def describe(self, name: str) -> str:
        """Returns the path of a file for errors: on the disk, or inside an archive."""
        path = self.locate(name)
        if path is None:
            for archive, found in self._find_archives().items():
                if name.startswith(tuple(f"{held}/" for held in self.layout.archives[archive])):
                    return f"{found}/{name}"
            top = self.locate(name.split("/")[0])
            path = (self._source if top is None else top.parent) / name
        return str(path)

    def read(self, names: Collection[str]) -> dict[str, bytes]:
        """Returns the contents of files by name.

        Raises:
            SourceError: if one is missing or cannot be read.
        """
        contents = {}
        for name, reader in self.open(names):
            try:
                contents[name] = reader()
            except OSError as error:
                raise SourceError(f"{self.describe(name)} cannot be read ({error.strerror})") from None
        absent = [name for name in names if name not in contents]
        if absent:
            raise SourceError(f"{self._source}: {', '.join(absent)} is missing")
        return contents

    def open(self, names: Collection[str]) -> Iterator[tuple[str, Callable[[], bytes]]]:
        """Yields the name of each file that exists, with a function that reads its bytes.

        Files on the disk come first, in the order given, then files in archives in the order of the archive,
        which is read once. The functions may be called in any thread and raise `OSError`.

        Raises:
            SourceError: if an archive cannot be read.
        """
        wanted = set(names)
        for name in names:
            if (path := self.locate(name)) is not None:
                wanted.discard(name)
                yield name, functools.partial(read_file, path)
        for archive in self._archives:
            if not wanted:
                return
            for member, content in _members(archive, lambda member: self._wanted(member, wanted) is not None):
                name = self._wanted(member, wanted)
                if name is not None:
                    wanted.discard(name)
                    yield name, content
                if not wanted:
                    break

    def _wanted(self, member: str, wanted: Collection[str]) -> str | None:
        """Returns the wanted name that a member of an archive has; None if it is not wanted."""
        path = posixpath.normpath(member)
        for folder in self.layout.folders:
            name = path if not folder else path.removeprefix(f"{folder}/")
            if name in wanted and (not folder or name != path):
                return name
        return None

    def _find_archives(self) -> dict[str, pathlib.Path]:
        found = {name: self.locate(name) for name in self.layout.archives}
        return {name: path for name, path in found.items() if path is not None and path.is_file()}


def _members(
    archive: pathlib.Path, is_wanted: Callable[[str], bool]
) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Yields the wanted regular files of an archive with functions that return their bytes."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                for name in opened.namelist():
                    if is_wanted(name):
                        content = opened.read(name)
                        yield name, lambda content=content: content  # type: ignore[misc]
            return
        # Random access to a compressed archive would decompress it again for every file.
        with tarfile.open(archive, "r|*") as stream:
            for member in stream:
                if member.isreg() and is_wanted(member.name):
                    file = stream.extractfile(member)
                    content = file.read() if file else b""
                    if len(content) != member.size:
                        raise EOFError("it ends inside a file")
                    yield member.name, lambda content=content: content  # type: ignore[misc]
    except _DAMAGES as error:
        reason = f"{error}" or type(error).__name__
        raise SourceError(f"{archive}: the archive is damaged, incomplete or encrypted ({reason})") from None
