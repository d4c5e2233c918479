"""Write files and folders atomically: they are complete, or not there.

Every artefact is written under a temporary name, flushed to disk and renamed. A killed run leaves
the old file or the new one, never a part. Its temporary files are removed by the next process that
writes into the folder.

`NAME` is written as `.NAME.PID.partial`; a folder that it replaces is moved to `.NAME.PID.old`. A
leftover is removed if no process on this machine has that PID and the file is not locked: locks
are visible to other machines and containers too.
"""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

from steelseg.files.lock import lock

_NAME = re.compile(r"\.(.+)\.(\d+)\.(partial|old)", re.DOTALL)


@cache
def remove_leftovers(folder: Path) -> None:
    """Remove leftovers in a folder, once per process; an old folder without a new one is restored.

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


def _is_running(pid: int) -> bool:
    """Whether another process on this machine has this PID."""
    if pid == os.getpid():
        # In containers, every process may have PID 1; the lock distinguishes them.
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _is_free(path: str) -> bool:
    """Whether no process writes a file, here or on another machine that shares the disk."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return lock(handle) is True
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    The folder of `path` is created if missing. If the block raises, the temporary file is removed
    and `path` is not changed.

    Args:
        path: The file to write.
        mode: "w" for UTF-8 text without translation of newlines, "wb" for bytes.
    """
    _make_folder(path.parent)
    remove_leftovers(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        # "x" does not follow a link that someone else has created there.
        partial.unlink(missing_ok=True)
        with open(partial, mode.replace("w", "x"), **text) as file:  # type: ignore[call-overload]  # noqa: PTH123
            lock(file.fileno())
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        # A full disk is reported without the name of the file.
        error.filename = error.filename or str(path)
        raise
    finally:
        # A file that cannot be removed now is removed later; the first error matters more.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Create a folder and its parents so that they survive a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `path` when the block ends without an error.

    An existing folder is moved aside first, and removed once the new one is in its place. After a
    kill in between, both exist under temporary names, and the next process that writes there
    restores the old one. If the block raises, `path` is not changed. If two processes replace the
    same folder, the last one to finish wins.
    """
    _make_folder(path.parent)
    remove_leftovers(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    partial.mkdir()
    handle = os.open(partial, os.O_RDONLY)
    lock(handle)
    try:
        yield partial
        for folder, _, names in os.walk(partial, topdown=False):
            for name in names:
                _sync(Path(folder, name))
            _sync(Path(folder))
        _swap(partial, path, old)
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(handle)
        shutil.rmtree(partial, ignore_errors=True)


def _swap(partial: Path, path: Path, old: Path) -> None:
    """Move `path` to `old` and `partial` to `path`, while other processes may do the same."""
    while True:
        with suppress(FileNotFoundError):
            path.rename(old)
        try:
            partial.rename(path)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                # Another process created the folder after `path` was moved to `old`.
                shutil.rmtree(old, ignore_errors=True)
                continue
            if old.exists():
                old.rename(path)
            raise
        return


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    _sync(folder)


def _sync(path: Path) -> None:
    """Flush a file or folder from the system's cache to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, completely or not at all."""
    with replacing(path) as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, completely or not at all."""
    with replacing(path, "wb") as file:
        file.write(content)
