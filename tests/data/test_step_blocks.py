from __future__ import annotations

import numpy as np
import pytest

from ccp_dml.data.sampling import MPerClassSampler, StepBlocks, sample_major


@pytest.mark.parametrize("images_per_step", [0, 10, 5_000, 10**9])
def test_every_step_gets_its_own_whatever_the_blocks(images_per_step: float) -> None:
    blocks = StepBlocks(lambda steps: np.stack([steps, steps**2], 1), images_per_step)
    for step in (0, 1, 31, 32, 33, 7, 1000, 31):
        assert blocks(step).tolist() == [step, step**2]


def test_a_batch_may_be_changed_without_harm() -> None:
    sampler = MPerClassSampler(np.arange(9) // 3, 2, 2)
    before = sampler.batch(3).tolist()
    sampler.batch(3)[:] = -1
    assert sampler.batch(3).tolist() == before


def test_sample_major() -> None:
    images = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]])
    assert sample_major(images, 2).tolist() == [[1, 4, 2, 5, 3, 6], [7, 10, 8, 11, 9, 12]]
