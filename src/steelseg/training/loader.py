"""Loading of training batches ahead of the network.

Batches are made in threads: OpenCV, numpy and file reading release the interpreter's lock, and a
batch made in this process need not be copied from another. A custom augmentation holds the lock
and has global state, so it runs in processes. The content of a batch does not depend on the
worker that makes it.
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
    """Iterates over the batches of an order; each iteration reads the order again."""

    def __init__(
        self,
        dataset: SampleDataset,
        order: Iterable[Sequence[SampleKey]],
        *,
        num_workers: int,
        pin_memory: bool,
    ) -> None:
        """Store the parameters; no worker is started yet.

        Args:
            dataset: Makes the batches.
            order: The keys of each batch.
            num_workers: Number of threads, or of processes that live as long as this loader; 0
                makes each batch when it is requested.
            pin_memory: True puts the batches into memory that a GPU can copy from directly.
        """
        self.dataset = dataset
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
            return _with_short_errors(self._processes)
        if self._num_workers:
            return prefetch(self._make, self._order, threads=self._num_workers)
        return (self._make(keys) for keys in self._order)


def _leave_group(_worker: int) -> None:
    """Leave the parent's process group: its signals are for the parent, which ends this one."""
    os.setpgid(0, 0)


def _with_short_errors(loader: DataLoader[Any]) -> Generator[Batch, None, None]:
    """Yield batches; reduce an error that a worker process wrapped in a traceback to one line."""
    try:
        yield from loader
    except SteelsegError as error:
        line = str(error).rpartition(f"{type(error).__name__}: ")[2].strip()
        raise type(error)(line) from None
