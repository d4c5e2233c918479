"""What the C library does with the large blocks that a network frees.

glibc returns some to the system and keeps others, by a threshold that it moves as it goes.
Training and prediction are faster when it keeps them all: the kernel need not clear pages anew
at each step. How far memory grows then is in docs/experiments.md.
"""

import ctypes

# Parameters of mallopt(3), from glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4


def keep_freed_memory() -> bool:
    """Keep freed blocks for the next step; where the C library is not glibc nothing happens.

    Returns:
        Whether the C library understood.
    """
    return _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1, _M_TOP_PAD: 64 * 2**20})


def _set(parameters: dict[int, int]) -> bool:
    """Call mallopt for each parameter, if there is one."""
    # Of this process: find_library would start a compiler to search for it.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in parameters.items())
