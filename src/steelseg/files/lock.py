"""Locks on files, by which one process at a time writes them."""

import fcntl
import os
from pathlib import Path

from steelseg.errors import SteelsegError


def lock(handle: int) -> bool | None:
    """Lock an open file until it is closed; the system releases the lock of a process that ended.

    Returns:
        True if the file is locked, False if another process holds its lock, None if the file
        system has no locks.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def open_locked(path: Path, *, in_use: SteelsegError) -> int:
    """Open or create a file for this process alone, where the file system has locks.

    Args:
        path: The file. A link in its place is not followed: others may write to the folder.
        in_use: Raised if another process holds the lock.

    Returns:
        The file descriptor, open to read and write.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    if lock(handle) is False:
        os.close(handle)
        raise in_use
    return handle
