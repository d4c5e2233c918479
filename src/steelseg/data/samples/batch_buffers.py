"""Memory for batches, used again once nothing holds it.

A batch is several megabytes. Asked of the C library each time, the blocks scatter over its heap,
which grows to several times what is in use; or the kernel clears every page anew.
"""

import math
import weakref
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Of every tensor's first byte: a cache line, and the widest register.
_ALIGNMENT = 64


class BatchMemory:
    """Blocks of memory, one a batch. Threads may share it."""

    def __init__(self) -> None:
        """Hold no block yet."""
        self._free: list[NDArray[np.uint8]] = []

    def __reduce__(self) -> tuple[object, ...]:
        """Travel to a worker process without the blocks."""
        return BatchMemory, ()

    def new(self, *shapes: Sequence[int], pin_memory: bool = False) -> list[Tensor]:
        """Make uint8 tensors of these shapes, side by side in one block; they hold anything.

        Args:
            shapes: Shape of each tensor.
            pin_memory: Whether a GPU will read them; torch then does what this class does.
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
        """Take a free block, or a new one where there is none as large."""
        try:
            block = self._free.pop()
        except IndexError:  # asked for, not looked up: another thread may take the last one
            block = np.empty(size, np.uint8)
        if block.size < size:
            block = np.empty(size, np.uint8)
        # A tensor holds this view for as long as anything holds the tensor or a part of it.
        view = block[:size]
        weakref.finalize(view, self._free.append, block)
        return view
