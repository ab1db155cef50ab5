"""A folder of small images, and configurations of runs on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ccp_dml.config import ExperimentConfig, command_line
from tests.data.image_folder import SMALL_RUN, write_image

CLASSES, PER_CLASS = 14, 4


@pytest.fixture(scope="session")
def configured(tmp_path_factory) -> Callable[..., ExperimentConfig]:
    """A function `configured(run_dir, *flags)` that gives the configuration of a run on a few images.

    The classes have nearly the same colours, so no score is perfect.
    """
    root = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        for index in range(PER_CLASS):
            file = root / "source" / f"class {label:02d}" / f"{index}.png"
            write_image(file, (120 + label % 4, 120 + label // 4, 128), seed=10 * label + index)

    def make(run_dir, *flags: str) -> ExperimentConfig:
        paths = (f"--data_dir={root / 'source'}", f"--prepared_dir={root / 'prepared'}")
        return command_line.parse([*SMALL_RUN, *paths, f"--run_dir={run_dir}", *flags])

    return make
