"""Who does what of a number of things."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ccp_dml.distributed.workers import SINGLE_WORKER, Workers


@given(total=st.integers(0, 200), count=st.integers(1, 9), local=st.integers(1, 8))
def test_shares_are_contiguous_whole_and_as_even_as_replicas_can_be(
    total: int, count: int, local: int
) -> None:
    workers = Workers()
    workers.count, workers.local_replicas = count, local
    end = 0
    for workers.index in range(count):
        share = workers.local_slice(total)
        assert share.start == end
        assert share.stop - share.start <= local * -(-total // (local * count))
        end = share.stop
    assert end == total


def test_one_process_exchanges_nothing() -> None:
    value = object()
    assert SINGLE_WORKER.is_chief
    assert SINGLE_WORKER.from_chief(value) is value
    assert SINGLE_WORKER.from_all(value) == [value]
    assert SINGLE_WORKER.local_slice(7) == slice(0, 7)
