from __future__ import annotations

import pytest
import tensorflow as tf

from ccp_dml.errors import UserError
from ccp_dml.experiment.smaller_blocks import SmallerBlocks


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
        "warning: --evaluation_batch_size=100: not enough memory to evaluate; going on with 25\n"
    )


def test_once_only():
    blocks, sizes = SmallerBlocks(100), []
    with pytest.raises(UserError, match="not even 25 images at once; expected a smaller number"):
        blocks(lambda: no_memory(10, blocks, sizes))
    assert sizes == [100, 25]


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        SmallerBlocks(100)(lambda: 1 / 0)
