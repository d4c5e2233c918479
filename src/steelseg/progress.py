"""Progress on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

Progress = Callable[[Iterable[int], int, str], Iterable[int]]
"""What shows a loop's progress, for arguments: takes the loop, its length and a title."""

# Between two plain lines, in seconds: a log of an hour's run stays readable.
_QUIET_SECONDS = 15.0


def progress(loop: Iterable[T], length: int, title: str) -> Iterator[T]:
    """Yield from `loop` and show how far it is.

    Args:
        loop: What to iterate.
        length: How many items it has.
        title: What is being done.
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
