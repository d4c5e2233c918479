"""Batches made ahead of the network.

Threads make them: OpenCV, numpy and reading leave the interpreter's lock, and a batch that was made
in this process need not be copied between two. A user's augmentation holds the lock and has
global state, so it gets processes. Which worker makes a batch changes nothing in it.
"""

import os
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

from steelseg.data.samples.dataset import Batch, SampleDataset, SampleKey
from steelseg.errors import SteelsegError
from steelseg.inference.prefetch import prefetch


class BatchLoader:
    """The batches of an order; each iteration asks the order anew."""

    def __init__(
        self,
        dataset: SampleDataset,
        order: Iterable[Sequence[SampleKey]],
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        """Start nothing yet.

        Args:
            dataset: Makes the batches.
            order: The keys of each batch.
            num_workers: Threads, or processes that live as long as this loader; 0 makes each
                batch when it is asked for.
            pin_memory: Whether a GPU will read the batches.
        """
        self._make = partial(dataset.make, pin_memory=pin_memory)
        self._order = order
        self._num_workers = num_workers
        self._processes: DataLoader[Any] | None = None
        if dataset.needs_processes and num_workers:
            self._processes = DataLoader(
                dataset,
                sampler=order,
                batch_size=None,
                num_workers=num_workers,
                persistent_workers=True,
                worker_init_fn=_leave_group,
                pin_memory=pin_memory,
            )

    def __iter__(self) -> Generator[Batch, None, None]:
        """Start an epoch; close the generator to leave it early."""
        if self._processes is not None:
            return _plainly(self._processes)
        if self._num_workers:
            return prefetch(self._make, self._order, threads=self._num_workers)
        return (self._make(keys) for keys in self._order)


def _leave_group(_worker: int) -> None:
    """Let a process not share what is sent to the parent's group: the parent saves and ends it."""
    os.setpgid(0, 0)


def _plainly(loader: DataLoader[Any]) -> Generator[Batch, None, None]:
    """Yield batches; an error that a worker process wrapped in its traceback is one line again."""
    try:
        yield from loader
    except SteelsegError as error:
        line = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        raise type(error)(line) from None
