"""What can go wrong through no fault of the software.

    SteelsegError
    +-- ConfigError (ValueError)   a setting or an argument is wrong
    +-- DataError (ValueError)     an image, a CSV row or a store is wrong
    +-- CheckpointError            a checkpoint or a run folder cannot be used
    +-- ExportError                an exported network is not as good as its original
    +-- TrainingError              the loss is not a number any more

The command line prints these as one line and exits with 1. Any other exception is a bug of
ours and keeps its traceback.
"""

import errno

# How torch says that memory is short: on a processor, on a GPU, and of a lost worker.
_NO_MEMORY = (
    *("DefaultCPUAllocator", "not enough memory"),
    *("out of memory", "_STATUS_ALLOC_FAILED"),
    "by signal: Killed",
)


class SteelsegError(Exception):
    """The root of every error that a user can cause and mend."""


class ConfigError(SteelsegError, ValueError):
    """A setting or an argument is unknown, out of range or contradicts another."""


class DataError(SteelsegError, ValueError):
    """An image, a CSV row, a mask or a store is not what it must be."""


class CheckpointError(SteelsegError):
    """A checkpoint or run folder is missing, damaged, or made for something else."""


class ExportError(SteelsegError):
    """An exported network failed a check against its original."""


class TrainingError(SteelsegError):
    """Training cannot go on: a loss or gradient is not a number any more."""


class Stopped(KeyboardInterrupt):
    """Someone asked to stop, by Ctrl-C or SIGTERM."""

    def __init__(self, signum: int) -> None:
        """Take the number of the signal."""
        super().__init__(signum)
        self.signum = signum


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory was short."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return any(words in str(error) for words in _NO_MEMORY)
