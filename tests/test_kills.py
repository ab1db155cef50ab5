"""A run that is killed, anywhere and any number of times, ends like one that was not, bit by bit.

Each test prints how many kills its run has survived: `pytest tests/test_kills.py -rA` shows it.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import train
from ccp_dml import commands
from ccp_dml.losses import registry
from ccp_dml.run_directory import RunDirectory, State
from tests.image_folder import write_image
from tests.killed_runs import RunServer, assert_same, killed_at, start

CLASSES, PER_CLASS = 10, 3
RANDOM_KILLS, RANDOM_KILLS_OF_EACH = 10, 3
# The last checkpoint is within an epoch where a run dies in a step, and none is far.
RUN = (
    "--dataset=image_folder",
    "--backbone=cifar_resnet",
    "--image_size=16",
    "--embedding_size=8",
    "--classes_per_batch=3",
    "--samples_per_class=2",
    "--validation_fraction=0.4",
    "--steps_per_epoch=3",
    "--max_epochs=3",
    "--chunk_size=1",
    "--checkpoint_steps=2",
    "--learning_rate=1e-3",
    "--recall_at=1",
)
CCP = ("--proxies_per_class=2", "--pool_size=3", "--ccp_patience=1")
XBM = ("--memory_size=12", "--start_step=2", "--notensorboard")
REPRESENTATIVES = {
    "contrastive": ("--proxies_per_class=0", "--notensorboard"),
    "xbm/contrastive": XBM,
    "ccp/contrastive": CCP,
}
# One after the other: what a process finds that goes on where the one before has died.
PLACES = (
    ".ccp_dml_run:1",
    "environment.json:1",
    "config.cfg:1",
    "reset:1",
    "step:1",
    "checkpoint_write:1",
    "checkpoint_rename:1",
    "validation:1",
    "metrics.csv:1",
    "checkpoint_remove:1",
    "step:3",
    "checkpoint_rename:2",
    "validation:1",
    "environment.json:1",
    "config.cfg:1",
    "weights:1",
    "export:1",
    "export_replace:1",
    "results.json:1",
)
# Those that have options of their own beside the run's; all others take their defaults.
OPTIONS = {"xbm": XBM, "ccp": CCP}


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple[str, ...]:
    """Of a run on classes of nearly the same colours, so that no score is perfect."""
    root = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        for index in range(PER_CLASS):
            file = root / "source" / f"class {label:02d}" / f"{index}.png"
            write_image(file, (120 + label % 4, 120 + label // 4, 128), seed=10 * label + index)
    return (*RUN, f"--data_dir={root / 'source'}", f"--prepared_dir={root / 'prepared'}")


def finish(path: Path, *flags: str) -> RunDirectory:
    """Makes or continues a run in this process, to its end."""
    assert commands.run(lambda: train.main([*flags, f"--run_dir={path}"])) == 0
    return RunDirectory(path)


@pytest.mark.parametrize(
    "loss, places",
    [
        ("contrastive", ["validation:2"]),
        ("xbm/contrastive", ["checkpoint_rename:3"]),
        ("ccp/contrastive", ["reset:2", "export_replace:1"]),
    ],
)
def test_the_command_is_killed_at_places_of_each_mechanism(flags, tmp_path, loss, places):
    command = [*flags, f"--loss={loss}", *REPRESENTATIVES[loss]]
    expected = finish(tmp_path / "whole", *command)
    for place in places:
        assert killed_at([*command, f"--run_dir={tmp_path / 'killed'}"], place), place
        assert RunDirectory(tmp_path / "killed").state is State.UNFINISHED
    assert_same(finish(tmp_path / "killed", *command), expected)
    print(f"{loss}: {len(places)} kills survived, at {', '.join(places)}")


@pytest.fixture(scope="module")
def server() -> Iterator[RunServer]:
    with RunServer() as running:
        yield running


def matrix() -> list[str]:
    """Every loss by itself, and every wrapper around one that it takes."""
    wrapped = dict.fromkeys(registry.WRAPPERS, "proxy_nca") | {"xbm": "contrastive", "ccp": "contrastive"}
    return [*registry.LOSSES, *(f"{wrapper}/{base}" for wrapper, base in wrapped.items())]


@pytest.mark.slow
@pytest.mark.parametrize("loss", matrix())
def test_every_loss_is_killed_at_every_place_and_at_random(flags, tmp_path, server, loss):
    command = [*flags, f"--loss={loss}", *OPTIONS.get(loss.split("/")[0], ("--notensorboard",))]
    whole, at_places, at_random = (RunDirectory(tmp_path / name) for name in ("whole", "places", "random"))
    started = time.monotonic()
    assert server.run([*command, f"--run_dir={whole.path}"]) == 0
    seconds = time.monotonic() - started

    killed = [*command, f"--run_dir={at_places.path}"]
    places = [place for place in PLACES if loss.startswith("ccp") or not place.startswith("reset")]
    for place in places:
        assert server.run(killed, place) == -signal.SIGKILL, place
    assert server.run(killed) == 0
    assert_same(at_places, whole)

    generator, kills = random.Random(loss), 0
    while at_random.state is not State.FINISHED:
        delay = generator.uniform(0, seconds) if kills < RANDOM_KILLS_OF_EACH else None
        code = server.run([*command, f"--run_dir={at_random.path}"], kill_after=delay)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
    assert_same(at_random, whole)
    print(f"{loss}: {len(places)} kills at places and {kills} at random survived")


@pytest.mark.slow
@pytest.mark.parametrize("loss", REPRESENTATIVES)
def test_the_command_is_killed_at_random(flags, tmp_path, loss):
    command = [*flags, f"--loss={loss}", *REPRESENTATIVES[loss]]
    started = time.monotonic()
    assert start([*command, f"--run_dir={tmp_path / 'whole'}"]).wait() == 0
    seconds = time.monotonic() - started
    generator, kills = random.Random(loss), 0
    while RunDirectory(tmp_path / "killed").state is not State.FINISHED:
        process = start([*command, f"--run_dir={tmp_path / 'killed'}"])
        if kills < RANDOM_KILLS:
            time.sleep(generator.uniform(0.3, 0.9) * seconds)
            process.kill()
        kills += process.wait() == -signal.SIGKILL
    assert_same(RunDirectory(tmp_path / "killed"), RunDirectory(tmp_path / "whole"))
    print(f"{loss}: {kills} kills at random moments survived")
