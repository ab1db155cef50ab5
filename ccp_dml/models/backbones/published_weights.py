"""Published weights of backbones: where a file is expected, its download and its checksum."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

WEIGHTS_DIR = Path(__file__).parent / "weights"
_TIMEOUT_SECONDS = 20


@dataclass(frozen=True)
class PublishedWeights:
    """A file of published weights.

    Attributes:
        file: name of the file.
        url: address to download it from; None if it comes with the library or is made by a command.
        md5: checksum of the file, if its publisher states one.
        how: for a file that is made by a command: the end of a sentence that names source and command.
    """

    file: str
    url: str | None = None
    md5: str | None = None
    how: str = ""

    @property
    def path(self) -> Path:
        """Path of the file: with the library, or in the folder where Keras keeps such files."""
        with_library = self.url is None and not self.how
        return (WEIGHTS_DIR if with_library else cache_folder()) / self.file

    def provide(self) -> None:
        """Makes sure that the file is there, downloading it if possible.

        Raises:
            ValueError: if it is missing or damaged; the message names the file and its folder.
        """
        if not self.path.is_file():
            if self.url is None:
                raise ValueError(f"expected the file {self.file} in {self.path.parent}{self.how}")
            self._download(self.url)
        elif self.md5 is not None and (found := _md5(self.path)) != self.md5:
            raise ValueError(
                f"{self.path} is damaged or another file: its MD5 is {found}, expected {self.md5}; "
                "delete it to download it again"
            )

    def _download(self, url: str) -> None:
        folder = self.path.parent
        print(f"downloading {url} to {folder}", file=sys.stderr, flush=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{self.file}.", dir=folder) as workspace:
                fresh = Path(workspace) / self.file
                with (
                    urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as source,
                    fresh.open("wb") as file,
                ):
                    shutil.copyfileobj(source, file)
                if self.md5 is not None and _md5(fresh) != self.md5:
                    raise OSError("the downloaded file is damaged")
                os.replace(fresh, self.path)
        except OSError as error:
            raise ValueError(
                f"expected the file {self.file} in {folder}; it could not be downloaded ({error}): "
                f"put it there yourself, from {url}"
            ) from error


def cache_folder() -> Path:
    """The folder in which Keras keeps downloaded weights: `$KERAS_HOME/models`, else `~/.keras/models`."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path.home() / ".keras") / "models"


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
