"""Ctrl-C and SIGTERM while a fold trains: finish the step, save, then stop.

An exception in the middle of an optimizer step would leave weights that no whole training has.
So the signals only leave a note here, and the loop asks for it where it can save.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from steelseg.errors import Stopped

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopNote:
    """Whether someone has asked to stop."""

    def __init__(self) -> None:
        """Nobody has."""
        self.signum: int | None = None

    def take(self, signum: int, _frame: FrameType | None) -> None:
        """Note a signal; the second one stops at once."""
        if self.signum is not None:
            raise Stopped(signum)
        self.signum = signum


@contextmanager
def noting_signals() -> Iterator[StopNote]:
    """Note Ctrl-C and SIGTERM inside the block instead of stopping; stop at its end.

    Outside the main thread, where Python delivers no signals, nothing is noted.
    """
    note = StopNote()
    if threading.current_thread() is not threading.main_thread():
        yield note
        return
    before = {signum: signal.signal(signum, note.take) for signum in _SIGNALS}
    try:
        yield note
    except RuntimeError:
        # Where every process was sent the signal, the loss of a worker is no error of its own.
        if note.signum is None:
            raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
    if note.signum is not None:
        raise Stopped(note.signum)
