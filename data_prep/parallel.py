"""Threads that keep order and bound memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from xresnet.basics import cores

_T = TypeVar("_T")
_R = TypeVar("_R")


def default_threads() -> int:
    """The number of usable cores plus one, which keeps them busy while one thread waits."""
    return cores.usable() + 1


def ordered(work: Callable[[_T], _R], items: Iterable[_T], threads: int) -> Iterator[_R]:
    """`map(work, items)` with threads, in order, with at most 3 tasks per thread in memory."""
    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[_R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 3 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
        pool.shutdown()
