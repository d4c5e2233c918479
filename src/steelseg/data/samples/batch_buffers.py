"""Reusable memory for batches.

A batch takes several megabytes. Allocated for each batch, the blocks fragment the heap, which grows
to several times the memory in use, or the kernel has to clear every page again.
"""

import math
import weakref
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Alignment of each tensor in bytes: a cache line, and the widest register.
_ALIGNMENT = 64


class BatchMemory:
    """A pool of memory blocks, one per batch. Threads may share it."""

    def __init__(self) -> None:
        """Start without blocks."""
        self._free: list[NDArray[np.uint8]] = []

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle for a worker process without the blocks."""
        return BatchMemory, ()

    def new(self, *shapes: Sequence[int], pin_memory: bool = False) -> list[Tensor]:
        """Return uninitialised uint8 tensors of these shapes, next to each other in one block.

        Args:
            shapes: Shape of each tensor.
            pin_memory: Whether to pin the memory for a GPU; torch then caches the blocks itself.
        """
        sizes = [math.prod(shape) for shape in shapes]
        rooms = [-(-size // _ALIGNMENT) * _ALIGNMENT for size in sizes]
        if pin_memory:
            block = torch.empty(sum(rooms), dtype=torch.uint8, pin_memory=True)
        else:
            block = torch.from_numpy(self._take(sum(rooms)))
        begins = accumulate(rooms, initial=0)
        return [
            block[begin : begin + size].view(*shape)
            for begin, size, shape in zip(begins, sizes, shapes, strict=False)
        ]

    def _take(self, size: int) -> NDArray[np.uint8]:
        """Return a free block, or a new one if none is large enough."""
        try:
            block = self._free.pop()
        except IndexError:  # not checked before: another thread may take the last one
            block = np.empty(size, np.uint8)
        if block.size < size:
            block = np.empty(size, np.uint8)
        # The view lives as long as the tensor or any part of it; then the block is free again.
        view = block[:size]
        weakref.finalize(view, self._free.append, block)
        return view
