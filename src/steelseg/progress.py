"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

T = TypeVar("T")

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]
"""A function that shows the progress of a loop: takes the loop, its length and a title."""

# Seconds between two plain lines, so that the log of an hour stays readable.
_QUIET_SECONDS = 15.0


def no_progress(loop: Iterable[T], length: int, title: str) -> Iterable[T]:  # noqa: ARG001
    """Return `loop` without showing progress; a default for `Progress` arguments."""
    return loop


def progress(loop: Iterable[T], length: int, title: str) -> Iterator[T]:
    """Yield the items of a loop and show how many are done.

    Args:
        loop: The items.
        length: Number of items.
        title: Name of the task.
    """
    if sys.stderr.isatty():
        yield from tqdm(loop, total=length, desc=title, leave=False, dynamic_ncols=True)
        return
    begin = last = time.monotonic()
    for done, item in enumerate(loop):
        now = time.monotonic()
        if now - last > _QUIET_SECONDS:
            left = (now - begin) / done * (length - done)
            print(f"{title}: {done}/{length}, {left:.0f} s left", file=sys.stderr, flush=True)
            last = now
        yield item
