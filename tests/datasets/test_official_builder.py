"""The preparation of published data sets: counts, damage, interruption, downloads and boxes."""

from __future__ import annotations

import functools
import hashlib
import http.server
import importlib
import io
import shutil
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import checksums

from ccp_dml.datasets.cars196.cars196_dataset_builder import Builder as Cars196Builder
from ccp_dml.datasets.common import images
from ccp_dml.datasets.common.images import ImageError
from ccp_dml.datasets.common.release import Size
from ccp_dml.datasets.common.source_files import SourceError
from ccp_dml.datasets.cub.cub_dataset_builder import Builder as CubBuilder
from ccp_dml.datasets.cub.release import Cub
from ccp_dml.datasets.inshop.inshop_dataset_builder import Builder as InshopBuilder
from tests.datasets import miniatures

MINIATURE_SIZES = {"train": Size(2, 4), "test": Size(2, 4)}


@pytest.fixture(autouse=True)
def _quiet():
    tfds.disable_progress_bar()


@pytest.fixture
def source(tmp_path):
    return miniatures.write_cub(tmp_path / "Vögel, 2011", 4, 2)


@pytest.fixture
def _counts_of_miniatures(monkeypatch):
    monkeypatch.setattr(Cub, "sizes", MINIATURE_SIZES)


def make(builder_class, prepared, source=None, **options):
    return builder_class(source_dir=source, data_dir=prepared, file_format="array_record", **options)


def records(builder, split):
    found = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
    return sorted(found, key=lambda record: record["image_id"])


def test_the_published_counts_are_required(source, tmp_path):
    builder = make(CubBuilder, tmp_path / "prepared", source)
    with pytest.raises(
        SourceError, match=r"cub: images\.txt has 2 classes and 4 images for train; expected 100"
    ):
        builder.download_and_prepare()
    assert not builder.data_path.exists()


@pytest.mark.usefixtures("_counts_of_miniatures")
def test_prepared_data_needs_no_source(source, tmp_path):
    make(CubBuilder, tmp_path / "prepared", source).download_and_prepare()
    shutil.rmtree(source)
    builder = make(CubBuilder, tmp_path / "prepared")
    assert builder.data_path == tmp_path / "prepared" / "cub" / "zero_shot" / "1.1.0"
    assert builder.info.features["label"].names == [f"{i:03d}.Bird_{i}" for i in range(1, 5)]
    assert [record["label"] for record in records(builder, "test")] == [2, 2, 3, 3]


@pytest.mark.usefixtures("_counts_of_miniatures")
def test_an_interrupted_preparation_leaves_no_data_and_can_be_repeated(source, tmp_path, monkeypatch):
    convert_all = images.convert_all

    def interrupt(files):
        yield from list(convert_all(files))[:2]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(images, "convert_all", interrupt)
        with pytest.raises(KeyboardInterrupt):
            make(CubBuilder, tmp_path / "prepared", source).download_and_prepare()
    assert not list((tmp_path / "prepared").rglob("*.array_record*"))
    builder = make(CubBuilder, tmp_path / "prepared", source)
    builder.download_and_prepare()
    assert len(records(builder, "train")) == len(records(builder, "test")) == 4


def test_damaged_images_are_all_named(source, tmp_path):
    damaged = sorted(source.rglob("*.jpg"))[:3:2]
    for file in damaged:
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ImageError, match="2 images cannot be used") as error:
        make(CubBuilder, tmp_path / "prepared", source, check_counts=False).download_and_prepare()
    assert all(str(file) in str(error.value) for file in damaged)


def test_unchecked_sources_are_prepared_under_their_own_names(source, tmp_path):
    other = miniatures.write_cub(tmp_path / "other", 4, 3)
    builders = [make(CubBuilder, tmp_path / "prepared", top, check_counts=False) for top in (source, other)]
    for builder in builders:
        builder.download_and_prepare()
        assert builder.data_path.parent.name.startswith("zero_shot-")
    assert [len(records(builder, "train")) for builder in builders] == [4, 6]
    with pytest.raises(SourceError, match="a source is needed"):
        make(CubBuilder, tmp_path / "prepared", check_counts=False)
    with pytest.raises(SourceError, match="cub has no variant open; expected one of: zero_shot"):
        make(CubBuilder, tmp_path / "prepared", source, config="open")


def test_records_hold_the_image_the_id_and_the_box(tmp_path):
    source = miniatures.write_cars196_devkit(tmp_path / "autos", 4, 2)
    builder = make(Cars196Builder, tmp_path / "prepared", source, check_counts=False)
    builder.download_and_prepare()
    found = [record for split in ("train", "test") for record in records(builder, split)]
    # Both images of a class come from different files, so that ids alternate between the halves.
    assert [record["image_id"] for record in found] == [0, 1, 4, 5, 2, 3, 6, 7]
    for record in found:
        assert record["image"] == (source / record["file"].decode()).read_bytes()
        assert record["box"].tolist() == [6, 4, 16, 20]


def test_boxes_end_at_the_edges_of_the_image(source, tmp_path):
    boxes = source / "CUB_200_2011" / "bounding_boxes.txt"
    lines = boxes.read_text().splitlines()
    lines[0], lines[1] = "1 -3.4 20.5 10.0 100.0", "2 30.6 0.0 5.0 5.0"
    boxes.write_text("\n".join(lines))
    builder = make(CubBuilder, tmp_path / "prepared", source, check_counts=False)
    builder.download_and_prepare()
    # Images are 32 pixels wide and 28 high.
    assert [record["box"].tolist() for record in records(builder, "train")[:2]] == [
        [20, 0, 8, 7],
        [0, 31, 5, 1],
    ]
    lines[2] = "3 40.0 0.0 5.0 5.0"
    boxes.write_text("\n".join(lines))
    with pytest.raises(
        SourceError, match=r"Bird_0000\.jpg: the box \(40, 0, 45, 5\) has no area in an image of"
    ):
        make(CubBuilder, tmp_path / "prepared", source, check_counts=False).download_and_prepare()


def test_images_of_another_size_get_no_box(tmp_path):
    source = miniatures.write_inshop(tmp_path / "shop", 4, 2)
    large = sorted(source.rglob("*.jpg"))[0]
    output = io.BytesIO()
    Image.new("RGB", (300, 400)).save(output, "jpeg")
    large.write_bytes(output.getvalue())
    builder = make(InshopBuilder, tmp_path / "prepared", source, check_counts=False)
    builder.download_and_prepare()
    assert [record["box"].tolist() for record in records(builder, "train")[:2]] == [
        [0, 0, 0, 0],
        [30, 50, 190, 150],
    ]
    assert len(records(builder, "query")) == len(records(builder, "gallery")) == 2


@pytest.fixture
def server(source, tmp_path, monkeypatch):
    """Serves the archive over HTTP; yields its address and the archive."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    served = tmp_path / "served"
    served.mkdir()
    with tarfile.open(served / "CUB_200_2011.tgz", "w:gz") as archive:
        archive.add(source / "CUB_200_2011", "CUB_200_2011")
    handler = functools.partial(_SilentHandler, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/CUB_200_2011.tgz", served / "CUB_200_2011.tgz"
        running.shutdown()


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def register(monkeypatch, url: str, archive: Path, checksum: str | None = None) -> None:
    content = archive.read_bytes()
    checksum = checksum or hashlib.sha256(content).hexdigest()
    known = checksums.UrlInfo(
        size=tfds.core.utils.Size(len(content)), checksum=checksum, filename=archive.name
    )
    monkeypatch.setattr(Cub, "download_url", url)
    monkeypatch.setattr(CubBuilder, "url_infos", {url: known})


DEMAND_CHECKSUMS = tfds.download.DownloadConfig(force_checksums_validation=True)


@pytest.mark.usefixtures("_counts_of_miniatures")
def test_a_download_is_checked_and_not_unpacked(server, tmp_path, monkeypatch):
    url, archive = server
    register(monkeypatch, url, archive)
    builder = make(CubBuilder, tmp_path / "prepared")
    builder.download_and_prepare(download_config=DEMAND_CHECKSUMS)
    assert [record["label"] for record in records(builder, "train")] == [0, 0, 1, 1]
    assert not list((tmp_path / "prepared" / "downloads").rglob("*.jpg"))


def test_a_download_with_another_checksum_is_refused(server, tmp_path, monkeypatch):
    url, archive = server
    register(monkeypatch, url, archive, checksum="0" * 64)
    builder = make(CubBuilder, tmp_path / "prepared")
    with pytest.raises(
        SourceError, match=r"is not the published file, going by its checksum; get CUB_200_2011\.tgz"
    ):
        builder.download_and_prepare(download_config=DEMAND_CHECKSUMS)
    assert not builder.data_path.exists()


def test_a_failed_download_is_one_line_with_advice(server, tmp_path, monkeypatch):
    url, archive = server
    register(monkeypatch, f"{url}2", archive)
    with pytest.raises(
        SourceError, match=r"2 could not be downloaded \(.*\); get CUB_200_2011\.tgz from"
    ) as error:
        make(CubBuilder, tmp_path / "prepared").download_and_prepare(download_config=DEMAND_CHECKSUMS)
    assert "\n" not in str(error.value)


def test_a_data_set_without_a_public_download_gives_advice(tmp_path):
    with pytest.raises(
        SourceError, match=r"cars196 cannot be downloaded; get cars_annos\.mat and car_ims\.tgz"
    ):
        make(Cars196Builder, tmp_path / "prepared").download_and_prepare()


@pytest.mark.parametrize("name", ["cub", "sop", "cifar10", "cifar100"])
def test_every_download_has_a_checksum(name):
    builder = importlib.import_module(f"ccp_dml.datasets.{name}.{name}_dataset_builder").Builder
    for release in builder.RELEASES:
        assert len(builder.url_infos[release.download_url].checksum) == 64


def test_plain_jpegs_are_stored_as_they_are(source, tmp_path):
    builder = make(CubBuilder, tmp_path / "prepared", source, check_counts=False)
    builder.download_and_prepare()
    for record in records(builder, "train"):
        original = (source / "CUB_200_2011" / record["file"].decode()).read_bytes()
        assert record["image"] == original
        assert np.asarray(Image.open(io.BytesIO(original))).shape == (28, 32, 3)


def test_no_split_is_held_in_memory(source, tmp_path, monkeypatch):
    """Records are shuffled through many small files; a single file would be read into memory to be sorted."""
    buckets = set()
    add = shuffle.Shuffler._add_to_bucket

    def noted(shuffler, key, data):
        buckets.add(shuffle.get_bucket_number(key, shuffle.BUCKETS_NUMBER))
        add(shuffler, key, data)

    monkeypatch.setattr(shuffle.Shuffler, "_add_to_bucket", noted)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    builder = make(CubBuilder, tmp_path / "prepared", source, check_counts=False)
    builder.download_and_prepare()
    assert len(buckets) > 4
    assert [record["image_id"] for record in records(builder, "test")] == [4, 5, 6, 7]
