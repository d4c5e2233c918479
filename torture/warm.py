"""Processes that begin warm: a server imports torch once and forks each of them.

A child runs with one thread, as a session leader of its own; what it prints goes to a file. It
ends with the exit code of its last command, or by the signal that kills it.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

_CONTEXT = multiprocessing.get_context("forkserver")
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def begin(work: Callable[..., Any], *args: object, output: Path) -> BaseProcess:
    """Start `work` in a warm process; its return value is the exit code."""
    with mock.patch.dict(os.environ, _ONE_THREAD):
        _CONTEXT.set_forkserver_preload(["torture.commands"])
        forkserver.ensure_running()
    with _plain_main():
        process = _CONTEXT.Process(target=_child, args=(work, args, output))
        process.start()
    return process


def end(process: BaseProcess, seconds: float = 120) -> int:
    """Wait for a process and give its exit code; minus a number is the signal that ended it.

    Raises:
        TimeoutError: if it hangs; it is killed.
    """
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"a process hung for {seconds} s")
    return process.exitcode


@contextmanager
def _plain_main():
    """Spare the child the main module of this process, which may be all of pytest."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name, None) for name in ("__spec__", "__file__")}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)


def _child(work: Callable[..., Any], args: Sequence[object], output: Path) -> None:
    """Set the process up and do the work."""
    os.setsid()
    # What a process has that nobody forked.
    multiprocessing.set_start_method("fork", force=True)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    import torch

    torch.set_num_threads(1)
    sys.exit(work(*args))
