from __future__ import annotations

import pytest
import tensorflow as tf

import train
from ccp_dml import commands
from ccp_dml.errors import UserError
from ccp_dml.evaluation.embedding import Embedder, SmallerBlocks
from ccp_dml.run_directory import RunDirectory
from ccp_dml.training.chunks import ChunkRunner
from tests.image_folder import SMALL_RUN, write_classes


def no_memory(above: int, blocks: SmallerBlocks, sizes: list[int]) -> str:
    sizes.append(blocks.batch_size)
    if blocks.batch_size > above:
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")
    return "done"


def test_it_goes_on_in_smaller_blocks_and_keeps_to_them(capsys):
    blocks, sizes = SmallerBlocks(100), []
    for _ in range(2):
        assert blocks(lambda: no_memory(30, blocks, sizes)) == "done"
    assert sizes == [100, 25, 25]
    assert capsys.readouterr().err == (
        "warning: --evaluation_batch_size=100: too little memory to embed or search; going on with 25\n"
    )


def test_once_only():
    blocks, sizes = SmallerBlocks(100), []
    with pytest.raises(UserError, match="not even 25 images at once; expected a smaller number"):
        blocks(lambda: no_memory(10, blocks, sizes))
    assert sizes == [100, 25]


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        SmallerBlocks(100)(lambda: 1 / 0)


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> tuple[str, ...]:
    """Of a run with resets of the proxies; 9 training images, 6 of validation, 18 of test."""
    root = tmp_path_factory.mktemp("images")
    return (
        *SMALL_RUN,
        f"--data_dir={write_classes(root / 'source', 11)}",
        f"--prepared_dir={root / 'prepared'}",
        "--validation_fraction=0.4",
        "--steps_per_epoch=1",
        "--max_epochs=2",
        "--ccp_patience=1",
        "--evaluation_batch_size=8",
        "--notensorboard",
    )


def fail_once(monkeypatch, normalization: str, call: int) -> list[int]:
    """Lets an embedder with this normalisation find no memory; returns the sizes of its batches."""
    embed, sizes = Embedder.__call__, []

    def short_of_memory(embedder: Embedder, batches):
        if embedder._normalization != normalization:
            return embed(embedder, batches)
        images = list(batches)
        sizes.append(len(images[0]))
        if len(sizes) == call:
            raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
        return embed(embedder, images)

    monkeypatch.setattr(Embedder, "__call__", short_of_memory)
    return sizes


@pytest.mark.parametrize(
    "normalization, call, batches",
    [
        # Pools of all 9 images, without normalisation: before the first epoch, and after both.
        ("none", 1, [8, 2, 2]),
        # Validation after two epochs; then test and, once more, validation.
        ("lipschitz", 2, [6, 6, 2, 2, 2]),
    ],
    ids=["reset", "validation"],
)
def test_a_run_goes_on_in_smaller_blocks(flags, tmp_path, monkeypatch, capsys, normalization, call, batches):
    sizes = fail_once(monkeypatch, normalization, call)
    assert commands.run(lambda: train.main([*flags, f"--run_dir={tmp_path}"])) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: --evaluation_batch_size=8: too little memory to embed or search; going on with 2"
    ]
    assert sizes[: len(batches)] == batches
    assert set(sizes[call:]) == {2}
    assert RunDirectory(tmp_path).read_results()["epochs"] == 2


def test_a_step_without_memory_is_one_line(flags, tmp_path, monkeypatch, capsys):
    def exhaust(runner, iterator, steps):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(ChunkRunner, "__call__", exhaust)
    assert commands.run(lambda: train.main([*flags, f"--run_dir={tmp_path}"])) == commands.BAD_INPUT
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: --run_dir={tmp_path}: too little memory for a step of training; ")
