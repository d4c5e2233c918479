"""Where the network runs, in which precision, and what happens to the memory that it frees.

glibc returns some of the large blocks that a network frees to the system and keeps others, by a
threshold that it adjusts. Training and prediction are faster when it keeps them all, because the
kernel need not clear pages at each step. docs/experiments.md says how far memory grows then.
"""

import ctypes
import time
from contextlib import AbstractContextManager
from functools import cache

import torch
import torch.nn.functional as F

# Processors with AVX-512 BF16 were seen to run bf16 at 0.7 and at 1.9 times float32's speed, so
# a convolution is timed. What is gained below this is not worth the rounding.
_WORTH_IT = 1.3
_ROUNDS = 5


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_type(device: torch.device) -> torch.dtype | None:
    """The half precision that `device` computes faster in than float32.

    Returns:
        bfloat16 on GPUs that have it and on processors that prove faster in it, float16 on other
        GPUs, None on other processors.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _bf16_pays() else None


@cache
def _bf16_pays() -> bool:
    """Time a convolution of this processor in both precisions, in turns; the best round counts."""
    if not torch.cpu._is_avx512_bf16_supported():
        # Emulated elsewhere, at a tenth of the speed.
        return False
    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    for _ in range(_ROUNDS):
        for dtype in seconds:
            images = torch.zeros(1, 64, 64, 128, dtype=dtype)
            images = images.contiguous(memory_format=torch.channels_last)
            kernel = torch.zeros(64, 64, 3, 3, dtype=dtype)
            begin = time.perf_counter()
            F.conv2d(images, kernel.contiguous(memory_format=torch.channels_last), padding=1)
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - begin)
    return seconds[torch.float32] > _WORTH_IT * seconds[torch.bfloat16]


def autocast(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[None]:
    """Mixed precision for the block; None leaves it in float32."""
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)


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
