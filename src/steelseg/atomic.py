"""Files that are either whole or not there.

Every artifact is written beside its final name, flushed to disk and renamed. A killed run
leaves the old file or the new one, never a half of either. What it left beside them under a
temporary name is removed by the next process that writes into the folder.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from steelseg.leftovers import lock, remove_leftovers


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
    the old one back. If the block raises, `path` stays as it was.
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
        if path.exists():
            path.rename(old)
        try:
            partial.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        sync_folder(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        os.close(handle)
        shutil.rmtree(partial, ignore_errors=True)


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
