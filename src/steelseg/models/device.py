"""The device a network runs on, and the precision it computes in."""

import time
from contextlib import AbstractContextManager
from functools import cache

import torch
import torch.nn.functional as F

# CPUs with AVX-512 BF16 ran bf16 at 0.7 to 1.9 times the speed of float32, so a convolution is
# timed. A smaller gain than this does not justify the rounding.
_LEAST_GAIN = 1.3
_ROUNDS = 5


def pick_device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_type(device: torch.device) -> torch.dtype | None:
    """Return the half precision in which `device` is faster than in float32.

    Returns:
        bfloat16 on GPUs that support it and on CPUs that prove faster in it, float16 on other GPUs,
        None on other CPUs.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _bf16_is_faster() else None


@cache
def _bf16_is_faster() -> bool:
    """Time a convolution on this CPU in both precisions in turn, and compare the best rounds."""
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
    return seconds[torch.float32] > _LEAST_GAIN * seconds[torch.bfloat16]


def autocast(device: torch.device, half: torch.dtype | None) -> AbstractContextManager[None]:
    """Return a context that uses mixed precision; None keeps float32."""
    return torch.autocast(device.type, dtype=half or torch.bfloat16, enabled=half is not None)
