"""Prefetching: threads make the next items while the current one is used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def prefetch(
    make: Callable[[S], T], sources: Iterable[S], *, threads: int, ahead: int | None = None
) -> Generator[T]:
    """Yield `make(source)` for each source, in order.

    An error is raised where its item would have come. If the generator is closed early, it waits
    for the items that are being made and drops those that wait for a thread.

    Args:
        make: Called in the threads.
        sources: Read in the caller's thread, no faster than items are used.
        threads: Number of items that are made at the same time.
        ahead: Number of items to make ahead of the one in use; None is one for each thread.
    """
    ahead = threads if ahead is None else ahead
    pool = ThreadPoolExecutor(threads, "prefetch")
    waiting: deque[Future[T]] = deque()
    try:
        for future in _submit(pool, make, sources):
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(
    pool: ThreadPoolExecutor, make: Callable[[S], T], sources: Iterable[S]
) -> Iterator[Future[T]]:
    """Submit each source; an error in reading one becomes a failed item."""
    try:
        for source in sources:
            yield pool.submit(make, source)
    except Exception as error:
        # Raised again where the item would have come, after those before it.
        failed: Future[T] = Future()
        failed.set_exception(error)
        yield failed
