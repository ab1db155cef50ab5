"""The installed package: a wheel in an environment of its own, used from an empty folder."""

from __future__ import annotations

import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests import ROOT

COPIED = ("ccp_dml", "datasets", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the project, made in a copy, because the build writes beside the sources."""
    copy = tmp_path_factory.mktemp("project")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    command = [
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        "dist",
        ".",
    ]
    subprocess.run([sys.executable, *command], cwd=copy, check=True)
    [made] = (copy / "dist").glob("*.whl")
    return made


def test_the_wheel_has_data_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0].split("-")[0] for name in names}
    assert tops == {"ccp_dml"}
    for needed in (
        "ccp_dml/configs/emoji.cfg",
        "ccp_dml/configs/cub/c2_ccp.cfg",
        "ccp_dml/datasets/emoji/emoji.zip",
        "ccp_dml/datasets/emoji/README.md",
        "ccp_dml/datasets/cub/checksums.tsv",
        "ccp_dml/models/backbones/weights/efficientnet_lite0_imagenet.npz",
    ):
        assert needed in names
    assert any("licenses/NOTICE" in name for name in names)
    assert not [
        name for name in names if name.endswith("_test.py") or "dummy_data" in name or "generate" in name
    ]


@pytest.mark.slow
def test_the_installed_commands_work_in_an_empty_folder(wheel, tmp_path):
    environment, folder = tmp_path / "environment", tmp_path / "empty"
    folder.mkdir()
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python, commands = environment / "bin" / "python", environment / "bin"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    # The packages that the library needs, from the environment of this test.
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "needed.pth").write_text("\n".join(site.getsitepackages()))
    # Another project has the name `datasets`.
    (packages / "datasets").mkdir()
    (packages / "datasets" / "__init__.py").write_text("name = 'another project'")
    program = (
        "import sys, ccp_dml, datasets\n"
        "assert 'tensorflow' not in sys.modules and datasets.name == 'another project'\n"
        "assert 'site-packages' in ccp_dml.__file__\n"
        "from ccp_dml.data import catalog\n"
        "from ccp_dml.data.options import SourceOptions\n"
        "print(catalog.check(SourceOptions()), callable(ccp_dml.CCPCallback), datasets.name)\n"
    )
    done = subprocess.run([python, "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "322 True another project"
    flags = ["--flagfile=configs/emoji.cfg", "--max_epochs=1", "--steps_per_epoch=1", "--run_dir=run"]
    subprocess.run([commands / "ccp-dml-train", *flags], cwd=folder, check=True)
    assert (folder / "run" / "saved_model").is_dir()
    export = ["--run_dir=run", "--output=model"]
    subprocess.run([commands / "ccp-dml-export", *export], cwd=folder, check=True)
    assert (folder / "model" / "saved_model.pb").is_file()
    shown = subprocess.run(
        [commands / "ccp-dml-evaluate", "--help"], cwd=folder, capture_output=True, text=True, check=True
    )
    assert "--run_dir" in shown.stdout
