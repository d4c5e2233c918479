"""Deferred handling of Ctrl-C and SIGTERM: finish the current step, save, then stop.

An exception in the middle of an optimizer step would leave weights that an uninterrupted training
never has. So a signal only sets a flag, which the loop checks where it can save.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from steelseg.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal asked the process to stop."""

    def __init__(self) -> None:
        """Start without a request."""
        self.signum: int | None = None

    def receive(self, signum: int, _frame: FrameType | None) -> None:
        """Record a signal; a second one raises Stopped at once."""
        if self.signum is not None:
            raise Stopped(signum)
        self.signum = signum


@contextmanager
def defer_signals() -> Iterator[StopRequest]:
    """Record Ctrl-C and SIGTERM inside the block, and raise Stopped at its end if there was one.

    Outside the main thread, to which Python delivers no signals, nothing is recorded.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.signal(signum, stop.receive) for signum in _SIGNALS}
    try:
        yield stop
    except RuntimeError:
        # A signal to the whole process group also ends loader workers, which raises this error.
        if stop.signum is None:
            raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if stop.signum is not None:
        raise Stopped(stop.signum)
