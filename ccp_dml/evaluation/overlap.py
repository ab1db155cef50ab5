"""Calls that run ahead of whoever uses their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_ahead(
    call: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
    """Yields items and results of calls, in order, while as many threads make the next ones.

    For calls that leave Python for most of their time. There are at most `threads + 1` results at a time, and
    one more as long as its user keeps the last.

    Args:
        call: what is done with an item; what it raises is raised in its place.
        items: read as they are needed.
        threads: at least 1.
    """
    with ThreadPoolExecutor(threads) as executor:
        pending: deque[tuple[Item, Future[Result]]] = deque()
        for item in items:
            if len(pending) == threads:
                done, future = pending.popleft()
                result = future.result()
                pending.append((item, executor.submit(call, item)))
                yield done, result
            else:
                pending.append((item, executor.submit(call, item)))
        for item, future in pending:
            yield item, future.result()
