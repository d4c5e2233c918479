"""Direct calls into the C library: the only place where this package steps below Python.

`keep_freed_memory` is for speed. glibc returns large freed blocks to the system, and the kernel
clears their pages again at the next step. Keeping them gave 1.2 times the training steps and 1.6
times the predicted strips per second; the peak memory of prediction grew from 1,005 to 1,029 MB
(`benchmarks/allocator.py`, docs/experiments.md).

`preserve_signal_stack` is for safety. Each CPU plugin of OpenVINO gives the thread that loads it an
alternate signal stack, and unmaps that when it is released. If plugins are not released in reverse
order, an unmapped stack is put back, and the next signal with a Python handler (Ctrl-C) ends the
process with a segmentation fault. Plugins do not touch a stack that is not their own.
"""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Parameters of mallopt(3), from glibc's malloc.h: allocate everything from the heap, never trim it,
# and grow it by 64 MiB at a time.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEEP = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20}


def keep_freed_memory() -> bool:
    """Keep freed memory in this process for the next step, where the C library is glibc.

    Returns:
        Whether the C library accepted the settings.
    """
    # Of this process: find_library would start a compiler to search for it.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in _KEEP.items())


class SignalStack(ctypes.Structure):
    """`stack_t` of sigaltstack(2), as 64-bit Linux and macOS define it."""

    _fields_ = (
        [("sp", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]
        if sys.platform == "linux"
        else [("sp", ctypes.c_void_p), ("size", ctypes.c_size_t), ("flags", ctypes.c_int)]
    )


def signal_stack() -> SignalStack:
    """Return the alternate signal stack of this thread."""
    stack = SignalStack()
    ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
    return stack


@contextmanager
def preserve_signal_stack() -> Iterator[None]:
    """Restore this thread's alternate signal stack at the end of the block."""
    if sys.platform == "win32":
        yield
        return
    before = signal_stack()
    try:
        yield
    finally:
        ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
