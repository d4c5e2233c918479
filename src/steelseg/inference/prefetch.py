"""Working ahead: the next items are made while the present one is used."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


def one_ahead(items: Iterator[T]) -> Generator[T]:
    """Yield the items of an iterator, each made in a thread while the one before is used.

    Errors come out where the item would have. Closed early, it waits for the item in the making.
    """
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def several_ahead(make: Callable[[S], T], sources: Iterable[S], *, count: int) -> Generator[T]:
    """Yield what is made of each source, in order, several being made side by side.

    Errors come out where the item would have. Closed early, it waits for the items in the making.

    Args:
        make: Called in several threads at once.
        sources: Read in the caller's thread, not faster than items are used.
        count: How many items are made side by side while one is used.
    """
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(count) as threads:
        for future in _submitted(threads, make, sources):
            waiting.append(future)
            if len(waiting) > count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _submitted(
    threads: ThreadPoolExecutor, make: Callable[[S], T], sources: Iterable[S]
) -> Iterator[Future[T]]:
    """Set threads to work on each source; one that cannot be read is an item that failed."""
    try:
        for source in sources:
            yield threads.submit(make, source)
    except Exception as error:
        # Raised again where the item would have come, after those before it.
        failed: Future[T] = Future()
        failed.set_exception(error)
        yield failed
