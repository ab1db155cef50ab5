"""Files of a source, in folders and in archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from ccp_dml.datasets.common.source_files import Layout, SourceError, SourceFiles

CONTENTS = {"list.txt": b"two images", "images/rosé 1.jpg": b"one", "images/deep/2.jpg": b"two"}
LAYOUT = Layout(
    needed=("list.txt", "images"),
    archives={"set.tgz": ("list.txt", "images"), "images.zip": ("images",)},
    folders=("", "the set"),
)


def write_files(top: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content)


def write_tar(file: Path, contents: dict[str, bytes]) -> None:
    with tarfile.open(file, "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(file: Path, contents: dict[str, bytes]) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


def below(prefix: str) -> dict[str, bytes]:
    return {f"{prefix}{name}": content for name, content in CONTENTS.items()}


def read_all(files: SourceFiles) -> dict[str, bytes]:
    return {name: read() for name, read in files.open(list(CONTENTS))}


def prepare(top: Path, kind: str) -> Path:
    """Writes the files in one of the layouts that a user may have; returns the source."""
    top.mkdir(parents=True)
    if kind == "folder":
        write_files(top, CONTENTS)
    elif kind == "folder below":
        write_files(top / "the set", CONTENTS)
    elif kind == "tar":
        write_tar(top / "set.tgz", below("the set/"))
    elif kind == "tar without a top":
        write_tar(top / "set.tgz", below("./"))
    elif kind == "tar of any name":
        write_tar(top / "65de6-vp158", below("the set/"))
        return top / "65de6-vp158"
    else:
        write_files(top, {"list.txt": CONTENTS["list.txt"]})
        write_zip(top / "images.zip", CONTENTS)
    return top


KINDS = ["folder", "folder below", "tar", "tar without a top", "tar of any name", "text and zip"]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_found_in_folders_and_archives(tmp_path, kind):
    files = SourceFiles(prepare(tmp_path / "my dätä", kind), LAYOUT)
    assert files.missing == ()
    assert read_all(files) == CONTENTS
    assert files.read(["list.txt"]) == {"list.txt": b"two images"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SourceError, match=r"none\.txt, no\.txt is missing"):
        files.read(["list.txt", "none.txt", "no.txt"])
    assert sorted(tmp_path.rglob("*")) == before


def test_missing_files_are_listed(tmp_path):
    assert SourceFiles(tmp_path, LAYOUT).missing == ("list.txt", "images")
    write_zip(tmp_path / "images.zip", {})
    assert SourceFiles(tmp_path, LAYOUT).missing == ("list.txt",)
    assert SourceFiles(tmp_path / "images.zip", LAYOUT).missing == ("list.txt",)


def test_files_on_disk_come_before_archives(tmp_path):
    write_files(tmp_path, {"list.txt": b"mine"})
    write_tar(tmp_path / "set.tgz", CONTENTS)
    files = SourceFiles(tmp_path, LAYOUT)
    assert read_all(files) == CONTENTS | {"list.txt": b"mine"}
    assert files.describe("list.txt") == str(tmp_path / "list.txt")
    assert files.describe("images/1.jpg") == str(tmp_path / "set.tgz" / "images/1.jpg")


def test_archives_write_no_file_and_follow_no_link(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    evil = {"../evil": b"evil", "/tmp/evil": b"evil", "the set/../../list.txt": b"evil"}
    with tarfile.open(tmp_path / "in" / "set.tgz", "w:gz") as archive:
        for name, content in evil.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("list.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret"
        archive.addfile(link)
    before = sorted(tmp_path.rglob("*"))
    files = SourceFiles(tmp_path / "in", LAYOUT)
    assert read_all(files) == {}
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("write", [write_tar, write_zip])
@pytest.mark.parametrize("keep", [0, 30, -40])
def test_the_error_names_a_damaged_archive(tmp_path, write, keep):
    file = tmp_path / "set.tgz"
    write(file, CONTENTS | {"images/large.jpg": bytes(range(256)) * 200})
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SourceError, match=r"set\.tgz: the archive is damaged, incomplete or encrypted"):
        dict(SourceFiles(tmp_path, LAYOUT).open(["images/none.jpg"]))


def test_the_fingerprint_changes_with_files_and_paths(tmp_path):
    found = set()
    for kind in KINDS:
        source = prepare(tmp_path / kind, kind)
        found.add(SourceFiles(source, LAYOUT).fingerprint)
        assert SourceFiles(source, LAYOUT).fingerprint in found
    (tmp_path / "folder" / "list.txt").write_bytes(b"two other images")
    found.add(SourceFiles(tmp_path / "folder", LAYOUT).fingerprint)
    assert len(found) == len(KINDS) + 1
