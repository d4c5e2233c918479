"""Where the network runs, and in which precision."""

from contextlib import AbstractContextManager

import torch


def pick_device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def half_type(device: torch.device) -> torch.dtype | None:
    """The half precision that `device` computes fast in.

    Returns:
        bfloat16 where the hardware has it, float16 on other GPUs, None on other CPUs.
    """
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    fast = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast and torch.cpu._is_avx512_bf16_supported() else None


def autocast(device: torch.device, *, amp: bool) -> AbstractContextManager[None]:
    """Mixed precision for the block, if `amp` asks for it and the machine has it."""
    dtype = half_type(device) if amp else None
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)
