"""Keeping the memory that a network frees.

The C library returns large freed blocks to the system and asks for them anew, and the kernel
clears every page each time. A network's activations are such blocks, at every step. Kept, they
are used again as they are: training and prediction are faster, and their memory is flat.
"""

import ctypes
import ctypes.util

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed blocks for the next step; elsewhere nothing happens.

    Returns:
        Whether the C library understood.
    """
    name = ctypes.util.find_library("c")
    mallopt = getattr(ctypes.CDLL(name), "mallopt", None) if name else None
    if mallopt is None:
        return False
    settings = {
        _M_MMAP_MAX: 0,
        _M_TRIM_THRESHOLD: 2**31 - 1,
        _M_TOP_PAD: 64 * 2**20,
        # Threads that read images would each keep a heap of their own.
        _M_ARENA_MAX: 1,
    }
    return all(mallopt(parameter, value) == 1 for parameter, value in settings.items())
