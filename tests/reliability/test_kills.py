"""A run that is killed and continued gives the same files, bit by bit, as one that was not.

Each test prints the number of kills: `pytest tests/reliability/test_kills.py -rA` shows it.
"""

from __future__ import annotations

import math
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
from tests.data.image_folder import write_image
from tests.reliability.killed_runs import (
    SHORT_CCP,
    SHORT_RUN,
    RunServer,
    assert_same,
    kill_at,
    newest_step,
    start,
    wait_for_step,
)

CLASSES, PER_CLASS = 10, 3
RANDOM_KILLS = 10
# Checkpoints every two steps of three, so that some are within an epoch. There are enough epochs for all
# places, however far a run comes before it is killed at a random moment.
RUN = (*SHORT_RUN, "--max_epochs=4", "--chunk_size=1", "--checkpoint_steps=2")
# Enough steps that ten kills at random moments all come before the end.
FINE_STEPS = ("--max_epochs=10", "--checkpoint_steps=1")
XBM = ("--memory_size=12", "--start_step=2", "--notensorboard")
REPRESENTATIVES = {
    "contrastive": ("--proxies_per_class=0", "--notensorboard"),
    "xbm/contrastive": XBM,
    "ccp/contrastive": SHORT_CCP,
}
# One after the other: each process continues after the kill of the one before.
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
# Places where the loss makes no difference: the runs with CCP, which pass all places, are enough.
WITHOUT_LOSS = (".ccp_dml_run", "environment.json", "config.cfg", "checkpoint_remove", "export_replace")
# Places before which the run is first killed at a random moment: from the start and from two checkpoints.
RANDOM_BEFORE = ("step:1", "step:3", "weights:1")
# Options by the first name of the loss; other losses have their defaults.
OPTIONS = {"xbm": XBM, "ccp": SHORT_CCP}


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple[str, ...]:
    """Flags of a run on classes of similar colours, so that no score is perfect."""
    root = tmp_path_factory.mktemp("images")
    for label in range(CLASSES):
        for index in range(PER_CLASS):
            file = root / "source" / f"class {label:02d}" / f"{index}.png"
            write_image(file, (120 + label % 4, 120 + label // 4, 128), seed=10 * label + index)
    return (*RUN, f"--data_dir={root / 'source'}", f"--prepared_dir={root / 'prepared'}")


def finish(path: Path, *flags: str) -> RunDirectory:
    """Starts or continues a run in this process."""
    assert commands.run(lambda: train.main([*flags, f"--run_dir={path}"])) == 0
    return RunDirectory(path)


@pytest.mark.parametrize(
    "loss, places",
    [
        pytest.param("contrastive", ["validation:2"], marks=pytest.mark.slow),
        pytest.param("xbm/contrastive", ["checkpoint_rename:3"], marks=pytest.mark.slow),
        ("ccp/contrastive", ["reset:2", "export_replace:1"]),
    ],
)
def test_the_command_is_killed_at_selected_places(flags, tmp_path, record_property, loss, places):
    command = [*flags, f"--loss={loss}", *REPRESENTATIVES[loss]]
    expected = finish(tmp_path / "whole", *command)
    for place in places:
        kill_at(place, [*command, f"--run_dir={tmp_path / 'killed'}"])
        assert RunDirectory(tmp_path / "killed").state is State.UNFINISHED
    assert_same(finish(tmp_path / "killed", *command), expected)
    record_property("kills", len(places))
    print(f"{loss}: {len(places)} kills, at {', '.join(places)}")


@pytest.fixture(scope="module")
def server() -> Iterator[RunServer]:
    with RunServer() as running:
        yield running


def matrix() -> list[str]:
    """Every loss by itself, and every wrapper around a loss that it takes."""
    wrapped = dict.fromkeys(registry.WRAPPERS, "proxy_nca") | {"xbm": "contrastive", "ccp": "contrastive"}
    return [*registry.LOSSES, *(f"{wrapper}/{base}" for wrapper, base in wrapped.items())]


def places_of(loss: str) -> list[str]:
    """The places at which a run with this loss is killed, in the order of `PLACES`."""
    if loss.startswith("ccp"):
        return list(PLACES)
    left_out = ("reset", *WITHOUT_LOSS)
    return [place for place in PLACES if place.split(":")[0] not in left_out]


@pytest.mark.slow
@pytest.mark.parametrize("loss", matrix())
def test_every_loss_is_killed_at_every_place_and_at_random(flags, tmp_path, server, record_property, loss):
    command = [*flags, f"--loss={loss}", *OPTIONS.get(loss.split("/")[0], ("--notensorboard",))]
    whole, killed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "killed")
    started = time.monotonic()
    assert server.run([*command, f"--run_dir={whole.path}"]) == 0
    seconds = time.monotonic() - started

    generator, kills = random.Random(loss), 0
    again = [*command, f"--run_dir={killed.path}"]
    for place in places_of(loss):
        # If the run passes the place before that moment, it is killed there instead.
        moments = [generator.uniform(0.05, 0.5) * seconds] if place in RANDOM_BEFORE else []
        for moment in (*moments, None):
            assert server.run(again, place, kill_after=moment) == -signal.SIGKILL, place
            kills += 1
    assert server.run(again) == 0
    assert_same(killed, whole)
    record_property("kills", kills)
    print(f"{loss}: {kills} kills, {len(RANDOM_BEFORE)} of them at random moments")


@pytest.mark.slow
@pytest.mark.parametrize("loss", REPRESENTATIVES)
def test_the_command_is_killed_at_random(flags, tmp_path, record_property, loss):
    """Every other kill comes before the first step: during imports, reading, restoring or tracing."""
    command = [*flags, f"--loss={loss}", *REPRESENTATIVES[loss], *FINE_STEPS]
    whole, killed = RunDirectory(tmp_path / "whole"), RunDirectory(tmp_path / "killed")
    started = time.monotonic()
    process = start([*command, f"--run_dir={whole.path}"])
    wait_for_step(process, whole, 1)
    start_up = time.monotonic() - started
    assert process.wait() == 0
    steps = newest_step(whole)
    pace = (time.monotonic() - started - start_up) / steps

    generator = random.Random(loss)
    for kill in range(RANDOM_KILLS):
        # Each kill is at least a step after the one before, whatever the speed of the machine.
        target = 0.9 * steps * (kill + generator.random()) / RANDOM_KILLS
        seconds = generator.uniform(0, start_up) if kill % 2 else math.inf
        process = start([*command, f"--run_dir={killed.path}"])
        wait_for_step(process, killed, max(newest_step(killed) + 1, round(target)), seconds)
        time.sleep(generator.uniform(0, pace))
        process.kill()
        assert process.wait() == -signal.SIGKILL, kill
        assert killed.state is not State.FINISHED
    assert start([*command, f"--run_dir={killed.path}"]).wait() == 0
    assert_same(killed, whole)
    record_property("kills", RANDOM_KILLS)
    print(f"{loss}: {RANDOM_KILLS} kills at random moments")
