"""Batches that are prepared once."""

from __future__ import annotations

from ccp_dml.data.pipeline import KeptBatches


class Source:
    def __init__(self) -> None:
        self.prepared = 0

    def __iter__(self):
        for number in range(3):
            self.prepared += 1
            yield f"batch {number}"


def test_later_passes_prepare_nothing():
    source = Source()
    kept = KeptBatches(source)
    passes = [list(kept) for _ in range(3)]
    assert passes == [["batch 0", "batch 1", "batch 2"]] * 3
    assert source.prepared == 3


def test_a_broken_pass_keeps_nothing():
    source = Source()
    kept = KeptBatches(source)
    next(iter(kept))
    assert list(kept) == ["batch 0", "batch 1", "batch 2"]
    assert source.prepared == 4
