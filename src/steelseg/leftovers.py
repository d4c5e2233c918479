"""What killed processes left beside the files that they were writing.

`atomic` writes `NAME` as `.NAME.PID.partial`, and moves a folder that it replaces to
`.NAME.PID.old`. A leftover is removed when no process of this machine has that number and nobody
holds the file: a lock is seen from other machines and containers too.
"""

import fcntl
import os
import re
import shutil
from functools import cache
from pathlib import Path

_NAME = re.compile(r"\.(.+)\.(\d+)\.(partial|old)", re.DOTALL)


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove, once a process, what was left in a folder; an old folder without a new one returns.

    Raises:
        OSError: if the folder cannot be read.
    """
    for entry in os.scandir(folder):
        match = _NAME.fullmatch(entry.name)
        if match is None or _is_running(int(match[2])) or not _is_free(entry.path):
            continue
        if match[3] == "old" and not (folder / match[1]).exists():
            Path(entry.path).rename(folder / match[1])
        elif entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            Path(entry.path).unlink(missing_ok=True)


def lock(handle: int) -> bool:
    """Hold a file as long as it is open; a dead process holds none. False where that fails."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_running(pid: int) -> bool:
    """Whether another process of this machine has this number."""
    if pid == os.getpid():
        # In a container every process may be number 1; the lock tells them apart.
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_free(path: str) -> bool:
    """Whether nobody writes a file, here or on another machine that shares the disk."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return lock(handle)
    finally:
        os.close(handle)
