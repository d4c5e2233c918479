"""Files that are either whole or not there.

Every artifact is written beside its final name, flushed to disk and renamed. A killed run
leaves the old file or the new one, never a half of either. What it left beside them under a
temporary name is removed by the next process that writes into the folder.

`NAME` is written as `.NAME.PID.partial`; a folder that it replaces is moved to `.NAME.PID.old`. A
leftover is removed when no process of this machine has that number and nobody holds the file: a
lock is seen from other machines and containers too.
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
        return lock(handle) is True
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary neighbour of `path` that takes its place when the block ends well.

    The folder of `path` is made when missing. If the block raises, the neighbour is removed
    and `path` stays as it was.

    Args:
        path: The file to write.
        mode: "w" for UTF-8 text with line ends left alone, "wb" for bytes.
    """
    _make_folder(path.parent)
    remove_leftovers(path.parent)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        # "x" follows no link that someone laid there.
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
        # What cannot be removed now is removed later; the first error is the one to show.
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it survive a power cut."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync_folder(folder.parent)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Give an empty neighbour of `path` that takes its place when the block ends well.

    A folder that was there is moved aside first, and removed once the new one is in its place:
    a kill in that moment leaves both beside `path`, and the next process that writes there puts
    the old one back. If the block raises, `path` stays as it was. If another process puts a
    folder there at the same time, the last one to finish is kept.
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
                # Another process put its folder there after `path` was moved to `old`.
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
    """Bring what the system still holds of a file or folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    with replacing(path) as file:
        file.write(text)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with replacing(path, "wb") as file:
        file.write(content)
