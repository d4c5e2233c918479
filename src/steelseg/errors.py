"""Errors that a user can cause, and their common base class.

    SteelsegError
    +-- ConfigError (ValueError)   a setting or an argument is wrong
    +-- DataError (ValueError)     an image, a CSV row or a store is wrong
    +-- CheckpointError            a checkpoint or a run folder cannot be used
    +-- ExportError                an exported network differs too much from its original
    +-- TrainingError              a loss or gradient is not finite
    +-- OutOfMemory                the processor or a GPU has too little memory

The command line prints these as one line and exits with 1. Any other exception is a bug and
keeps its traceback.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

# Messages of torch and the backends when memory runs out: on a CPU, on a GPU, in a lost worker.
_NO_MEMORY = (
    *("DefaultCPUAllocator", "not enough memory", "Failed to allocate memory", "bad_alloc"),
    *("out of memory", "_STATUS_ALLOC_FAILED"),
    "by signal: Killed",
)

_LESS_MEMORY = (
    "There is not enough memory. To train, lower train.batch_size_train or the crop size; to "
    "validate or predict, lower train.batch_size_val; to load samples, lower "
    "train.num_workers. inference.ensemble=sequential keeps one network in memory at a time."
)


class SteelsegError(Exception):
    """Base class of every error that a user can cause and fix."""


class ConfigError(SteelsegError, ValueError):
    """A setting or an argument is unknown, out of range or contradicts another."""


class DataError(SteelsegError, ValueError):
    """An image, a CSV row, a mask or a store is invalid."""


class CheckpointError(SteelsegError):
    """A checkpoint or run folder is missing, damaged, or made for something else."""


class ExportError(SteelsegError):
    """An exported network failed a check against its original."""


class TrainingError(SteelsegError):
    """Training cannot continue: a loss or gradient is not finite."""


class OutOfMemory(SteelsegError):  # noqa: N818 - torch has an OutOfMemoryError of its own
    """The processor or a GPU has too little memory for what was asked."""


class Stopped(KeyboardInterrupt):
    """The process was asked to stop, by Ctrl-C or SIGTERM."""

    def __init__(self, signum: int) -> None:
        """Store the signal number."""
        super().__init__(signum)
        self.signum = signum


@contextmanager
def raising_out_of_memory(message: str = _LESS_MEMORY) -> Iterator[None]:
    """Raise OutOfMemory in place of any error in the block that reports a lack of memory.

    Args:
        message: Advice to the user.
    """
    try:
        yield
    except (MemoryError, OSError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise OutOfMemory(message) from error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether an error reports a lack of memory."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(words in str(error) for words in _NO_MEMORY)
