"""The classes and splits of a folder of images: class folders, manifests and fingerprints."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from ccp_dml.datasets.image_folder.entries import Entry, LayoutError
from ccp_dml.datasets.image_folder.layout import read_layout


def make_files(root, *names):
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    return root


def make_classes(root, **sizes):
    return make_files(root, *(f"{name}/{i}.jpg" for name, size in sizes.items() for i in range(size)))


def write_manifest(root, *rows, header="file,label,split"):
    (root / "manifest.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return root


GOOD_ROWS = tuple(
    f"{label}{i}.jpg,{label},{split}" for label, split in zip("abc", ("train", "train", "test")) for i in "01"
)


def make_manifest_folder(root, *rows, header="file,label,split"):
    make_files(root, *(f"{label}{i}.jpg" for label in "abcd" for i in "012"))
    return write_manifest(root, *rows, header=header)


def test_the_first_half_of_the_sorted_classes_trains(tmp_path):
    layout = read_layout(make_classes(tmp_path, d=2, a=3, c=2, b=2, e=2))
    assert layout.class_names == ("a", "b", "c", "d", "e")
    assert layout.entries[:3] == tuple(Entry(f"a/{i}.jpg", "a", "train") for i in range(3))
    assert {e.label for e in layout.splits["train"]} == {"a", "b"}
    assert {e.label for e in layout.splits["test"]} == {"c", "d", "e"}
    assert [e.file for e in layout.entries] == sorted(e.file for e in layout.entries)


@pytest.mark.parametrize("fraction, expected", [(0.5, 50), (0.29, 29), (0.999, 99), (0.02, 2), (2 / 3, 66)])
def test_train_fraction(tmp_path, fraction, expected):
    layout = read_layout(make_classes(tmp_path, **{f"c{i:02}": 2 for i in range(100)}), fraction)
    assert len({entry.label for entry in layout.splits["train"]}) == expected


def test_unicode_and_blanks_in_names(tmp_path):
    names = [
        "Ä b/erstes Bild.JPG",
        "Ä b/二.jpeg",
        "z/ x.Png",
        "z/x.webp",
        "été/1.bmp",
        "été/2.GIF",
        "日/1.jpg",
        "日/2.jpg",
    ]
    layout = read_layout(make_files(tmp_path / "mes images", *names))
    assert {entry.file for entry in layout.entries} == set(names)
    assert layout.class_names == ("z", "Ä b", "été", "日")


def test_other_files_are_ignored(tmp_path):
    make_classes(tmp_path, a=2, b=2, c=2, d=2)
    make_files(
        tmp_path, "a/Thumbs.db", "b/notes.txt", "c/.hidden.jpg", ".git/x.jpg", "__MACOSX/y.jpg", "README.md"
    )
    assert len(read_layout(tmp_path).entries) == 8


SYSTEM_FOLDERS = (
    *("@eaDir", "$RECYCLE.BIN", "$Recycle.Bin", "#recycle", "lost+found", "__pycache__", "__MACOSX", "@tmp"),
    *("System Volume Information", "@Recycle", "#snapshot", "RECYCLER", ".Trash-1000", ".thumbnails"),
)


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
@pytest.mark.parametrize("where", ["", "b"])
def test_folders_of_systems_are_passed_over(tmp_path, name, where):
    make_classes(tmp_path, a=2, b=2, c=2, d=2)
    before = read_layout(tmp_path)
    make_files(tmp_path / where, f"{name}/x.jpg", f"{name}/deeper/SYNOPHOTO_THUMB.jpg", f"{name}/2.pyc")
    layout = read_layout(tmp_path)
    assert (layout.entries, layout.passed_over_in_words()) == (before.entries, None)


def test_names_like_those_of_systems_are_classes(tmp_path):
    names = ("@home", "#tag", "$5", "lost and found", "recycle")
    make_files(tmp_path, *(f"{name}/{i}.jpg" for name in names for i in range(2)))
    assert set(read_layout(tmp_path).class_names) == set(names)


PASSED_OVER = {
    "heic": (("a/{}.HEIC", 50),),
    "several": (("a/{}.heic", 3), ("b/{}.avif", 4), ("c/{}", 1), ("{}.md", 1), ("d/{}.txt", 1)),
    "many": tuple((f"a/{{}}.x{index}", index) for index in range(1, 9)),
    "beside": (("{}.jpg", 2),),
    "one": (("d/{}.cr2", 1),),
}
PASSED_OVER_IN_WORDS = {
    "heic": "50 files are passed over: 50 .heic; images end in .jpg, ",
    "several": "10 files are passed over: 4 .avif, 3 .heic, 1 .md beside the class folders, 1 .txt, "
    "1 without suffix; ",
    "many": "36 files are passed over: 8 .x8, 7 .x7, 6 .x6, 5 .x5, 4 .x4, 6 others; ",
    "beside": "2 files are passed over: 2 .jpg beside the class folders; ",
    "one": "1 file is passed over: 1 .cr2; ",
}


@pytest.mark.parametrize("case", PASSED_OVER)
def test_other_files_are_counted_by_suffix(tmp_path, case):
    make_classes(tmp_path, a=2, b=2, c=2, d=2)
    make_files(tmp_path, "a/Thumbs.db", "b/desktop.ini", "c/.DS_Store", "d/._1.jpg")
    assert read_layout(tmp_path).passed_over_in_words() is None
    for name, number in PASSED_OVER[case]:
        make_files(tmp_path, *(name.format(index + 10) for index in range(number)))
    layout = read_layout(tmp_path)
    assert len(layout.entries) == 8
    assert layout.passed_over_in_words().startswith(PASSED_OVER_IN_WORDS[case])


def test_a_class_of_other_files_names_their_suffix(tmp_path):
    make_files(make_classes(tmp_path, a=2, b=2, d=2), "c/1.heic", "c/2.heic")
    with pytest.raises(LayoutError, match=r"/c holds no image, but 2 \.heic; expected files in \.jpg"):
        read_layout(tmp_path)


@pytest.mark.parametrize("separator, name", [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
@pytest.mark.parametrize(
    "header", ["file,label,split", '"file","label","split","more"', "split,file,label\r"]
)
def test_a_manifest_with_other_separators_than_commas(tmp_path, separator, name, header):
    rows = [row.replace(",", separator) for row in GOOD_ROWS]
    make_manifest_folder(tmp_path, *rows, header=header.replace(",", separator))
    with pytest.raises(
        LayoutError, match=f"has the columns .*, separated by {name}; expected commas"
    ) as error:
        read_layout(tmp_path)
    assert "\n" not in str(error.value)


def test_backslashes_in_a_manifest(tmp_path):
    make_files(tmp_path, *(f"{label}/{i}.jpg" for label in "abc" for i in "012"), "c/odd\\name.jpg")
    rows = [f"{c}/{i}.jpg,{c},{s}" for c, s in zip("abc", ("train", "train", "test")) for i in "01"]
    assert len(read_layout(write_manifest(tmp_path, *rows, "c/odd\\name.jpg,c,test")).entries) == 7
    for file in ("a\\2.jpg", "C:\\photos\\a\\2.jpg", "a\\" + 300 * "x"):
        with pytest.raises(LayoutError, match=r"line 8: .* does not exist; expected forward slashes"):
            read_layout(write_manifest(tmp_path, *rows, f"{file},a,train"))


def test_manifest_with_train_and_test(tmp_path):
    layout = read_layout(make_manifest_folder(tmp_path, *reversed(GOOD_ROWS)))
    assert [(e.file, e.label, e.split) for e in layout.entries] == [
        tuple(row.split(",")) for row in GOOD_ROWS
    ]


def test_manifest_of_a_spreadsheet(tmp_path):
    """Byte order mark, Windows line ends, other order of columns, an additional column, blank lines."""
    make_manifest_folder(tmp_path)
    rows = [row.split(",") for row in GOOD_ROWS]
    lines = [
        "split,label,weight, file ",
        *(f'{split},"{label}, x",1,./{file}' for file, label, split in rows),
        "",
        "",
    ]
    (tmp_path / "manifest.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    layout = read_layout(tmp_path)
    assert [entry.file for entry in layout.entries] == [file for file, _, _ in rows]
    assert layout.class_names == ("a, x", "b, x", "c, x")


def test_manifest_with_query_and_gallery(tmp_path):
    """Usual protocols have distractor classes in the gallery and classes with a single query."""
    rows = ["c0.jpg,c,query", "c1.jpg,c,gallery", "d0.jpg,d,gallery"]
    layout = read_layout(make_manifest_folder(tmp_path, *GOOD_ROWS[:4], *rows))
    assert {split: len(entries) for split, entries in layout.splits.items()} == {
        "train": 4,
        "query": 1,
        "gallery": 2,
    }


def test_manifest_may_train_and_test_on_the_same_classes(tmp_path):
    rows = [f"{label}{i}.jpg,{label},{split}" for label in "ab" for i, split in ((0, "train"), (1, "train"))]
    rows += ["a2.jpg,a,test", "c0.jpg,a,test"]
    assert read_layout(make_manifest_folder(tmp_path, *rows)).class_names == ("a", "b")


FOLDER_ERRORS = {
    "no folders": (lambda root: make_files(root, "x.jpg"), r"holds no folders"),
    "one class": (lambda root: make_classes(root, a=2), r"holds 1 class folder"),
    "two classes": (
        lambda root: make_classes(root, a=2, b=2),
        r"one training class, 'a'; expected at least two",
    ),
    "empty class": (
        lambda root: make_files(make_classes(root, a=2, c=2, d=2), "b/x.txt"),
        r"/b holds no image",
    ),
    "class with one image": (
        lambda root: make_classes(root, a=2, b=1, c=2, d=2),
        r"class 'b' has one image in train",
    ),
    "test classes with one": (
        lambda root: make_classes(root, a=2, b=2, c=1, d=1),
        r"class 'c' \(and 1 more\) has one image in test",
    ),
    "folders in folders": (
        lambda root: make_files(root, "train/a/1.jpg", "test/b/1.jpg"),
        r"/test holds the folder 'b'",
    ),
}


@pytest.mark.parametrize("name", FOLDER_ERRORS)
def test_folders_that_cannot_be_used(tmp_path, name):
    make, message = FOLDER_ERRORS[name]
    with pytest.raises(LayoutError, match=message) as error:
        read_layout(make(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


MANIFEST_ERRORS = {
    "unknown split": (
        "a2.jpg,a,dev",
        r"line 8: unknown split 'dev'; expected train, validation, test, query, gallery",
    ),
    "folder as file": (".,a,train", r"line 8: '\.' is the folder itself"),
    "NUL": ("a\0.jpg,a,train", r"line 8: the name 'a\\x00\.jpg' has a NUL character"),
    "outside": ("../x.jpg,a,train", r"line 8: '\.\./x\.jpg' is not below"),
    "outside by a detour": ("a/../../x.jpg,a,train", r"line 8: .* is not below"),
    "absolute": ("/etc/passwd,a,train", r"line 8: '/etc/passwd' is not below"),
    "duplicate": ("a0.jpg,a,train", r"line 8: 'a0\.jpg' is already on line 2"),
    "duplicate in disguise": ("./a0.jpg,b,test", r"line 8: 'a0\.jpg' is already on line 2"),
    "no label": ("a2.jpg,,train", r"line 8: the label is missing"),
    "short row": ("a2.jpg", r"line 8: the label is missing"),
    "line break": ('a2.jpg,"a\nb",train', r"line 9: the name 'a\\nb' has a line break"),
    "open quote": ('a2.jpg,"a,train', r"line 8: not valid CSV"),
    "class with one image": ("d0.jpg,d,test", r"class 'd' has one image in test"),
    "query alone": ("d0.jpg,d,query", r"has the split\(s\) train, test, query; expected"),
}


@pytest.mark.parametrize("name", MANIFEST_ERRORS)
def test_manifests_that_cannot_be_used(tmp_path, name):
    row, message = MANIFEST_ERRORS[name]
    with pytest.raises(LayoutError, match=message) as error:
        read_layout(make_manifest_folder(tmp_path, *GOOD_ROWS, row))
    assert str(tmp_path / "manifest.csv") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "rows, header, message",
    [
        ((), "file,label,split", "lists no images"),
        (
            GOOD_ROWS,
            "file,class,split",
            "has the columns file, class, split; expected file, label, split once each",
        ),
        (GOOD_ROWS, "", "has the columns none; expected"),
        (GOOD_ROWS, "file,label,label,split", "once each"),
        (GOOD_ROWS[:4], "file,label,split", r"has the split\(s\) train; expected"),
        (GOOD_ROWS[4:], "file,label,split", r"has the split\(s\) test; expected"),
        ((*GOOD_ROWS[:2], *GOOD_ROWS[4:]), "file,label,split", "one training class, 'a'"),
        ((*GOOD_ROWS[:4], "c0.jpg,c,query"), "file,label,split", r"train, query; expected"),
        ((*GOOD_ROWS[:4], "c0.jpg,c,gallery"), "file,label,split", r"train, gallery; expected"),
        (
            (*GOOD_ROWS[:4], "c0.jpg,c,query", "d0.jpg,d,gallery"),
            "file,label,split",
            "query class 'c' has no image in the gallery",
        ),
    ],
)
def test_manifests_that_are_no_retrieval_task(tmp_path, rows, header, message):
    with pytest.raises(LayoutError, match=message):
        read_layout(make_manifest_folder(tmp_path, *rows, header=header))


def test_manifest_in_another_encoding(tmp_path):
    make_manifest_folder(tmp_path)
    (tmp_path / "manifest.csv").write_bytes("file,label,split\na0.jpg,é,train\n".encode("latin-1"))
    with pytest.raises(LayoutError, match=r"manifest\.csv is not text in UTF-8"):
        read_layout(tmp_path)


def test_missing_folder(tmp_path):
    with pytest.raises(LayoutError, match="none does not exist"):
        read_layout(tmp_path / "none")
    with pytest.raises(LayoutError, match="is not a folder"):
        read_layout(make_files(tmp_path, "file") / "file")


@pytest.mark.parametrize("fraction", [-0.5, 1.5, float("nan")])
def test_train_fraction_out_of_range(tmp_path, fraction):
    with pytest.raises(LayoutError, match="train_fraction"):
        read_layout(tmp_path, fraction)


def add_image(root):
    make_files(root, "a/new.jpg")


def remove_image(root):
    (root / "a/2.jpg").unlink()


def rename_image(root):
    (root / "a/2.jpg").rename(root / "a/3.jpg")


def grow_image(root):
    status = (root / "a/2.jpg").stat()
    (root / "a/2.jpg").write_bytes(b"x")
    os.utime(root / "a/2.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))


def touch_image(root):
    os.utime(root / "a/2.jpg", ns=(0, time.time_ns() + 1))


def replace_image(root):
    """Another file of the same size and time of modification, under the same name."""
    status = (root / "a/2.jpg").stat()
    time.sleep(0.05)  # The clock of files may have ticks of some milliseconds.
    make_files(root, "other.jpg")
    os.utime(root / "other.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "other.jpg").rename(root / "a/2.jpg")


def rewrite_image(root):
    status = (root / "a/2.jpg").stat()
    time.sleep(0.05)
    (root / "a/2.jpg").write_bytes(b"")
    os.utime(root / "a/2.jpg", ns=(status.st_atime_ns, status.st_mtime_ns))


def rename_class(root):
    (root / "a").rename(root / "A")


def add_manifest(root):
    write_manifest(
        root, *(f"{c}/{i}.jpg,{c},{s}" for c, s in zip("abc", ("train", "train", "test")) for i in "01")
    )


@pytest.mark.parametrize(
    "change",
    [
        *(add_image, remove_image, rename_image, grow_image, touch_image, replace_image, rewrite_image),
        *(rename_class, add_manifest),
    ],
    ids=lambda change: change.__name__,
)
def test_fingerprint_changes_with_the_source(tmp_path, change):
    make_classes(tmp_path, a=3, b=2, c=2, d=2)
    before = read_layout(tmp_path).fingerprint
    assert read_layout(tmp_path).fingerprint == before
    change(tmp_path)
    assert read_layout(tmp_path).fingerprint != before


def test_fingerprint_tells_folders_and_splits_apart(tmp_path):
    one = make_classes(tmp_path / "one", a=2, b=2, c=2, d=2, e=2)
    fingerprints = {read_layout(one).fingerprint, read_layout(one, 0.6).fingerprint}
    one.rename(tmp_path / "two")
    fingerprints.add(read_layout(tmp_path / "two").fingerprint)
    assert len(fingerprints) == 3


def test_layout_is_read_without_tensorflow(tmp_path):
    make_classes(tmp_path, a=2, b=2, c=2, d=2)
    program = (
        "import sys; from datasets.image_folder.layout import read_layout; read_layout(sys.argv[1]); "
        "sys.exit(any(name.startswith('tensorflow') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
