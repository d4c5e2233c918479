"""Where signal handlers run, kept as it was while OpenVINO compiles.

Each of OpenVINO's processor plugins gives the thread that loads it an alternate signal stack, and
unmaps that when it goes. Where plugins go in another order than they came, an unmapped one is put
back, and the next signal with a handler of Python's (Ctrl-C) ends the process with a segmentation
fault. Its plugins leave a stack alone that is not their own.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """stack_t of sigaltstack(2), as Linux and macOS on 64 bits lay it out."""

    _fields_ = (
        [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
        if sys.platform == "linux"
        else [("sp", ctypes.c_void_p), ("size", ctypes.c_size_t), ("flags", ctypes.c_int)]
    )


def signal_stack() -> SignalStack:
    """The alternate signal stack of this thread."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def kept_signal_stack() -> Iterator[None]:
    """Give this thread its signal stack back in the end, whatever replaced it."""
    if sys.platform == "win32":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
