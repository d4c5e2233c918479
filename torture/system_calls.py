"""Faults at chosen system calls of a process, by attaching strace to it while it is stopped."""

import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

MISSING = "" if shutil.which("strace") else "strace is not installed (apt install strace)"

# What writing a file takes, by the names of several kinds of machine.
_CALLS = ("open", "openat", "write", "fsync", "rename", "renameat", "renameat2")
_CALLS += ("mkdir", "mkdirat", "unlink", "unlinkat", "flock", "close")
_FILTER = ",".join(f"?{name}" for name in _CALLS)

_LINE = re.compile(r"^(\w+)\((.*)", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """One system call of a process."""

    call: str
    """Its name."""

    nth: int
    """The how manieth of its name, from 1."""

    where: str
    """Its arguments: files by their paths."""

    def __str__(self) -> str:
        return f"{self.call} number {self.nth}"


def list_points(process: BaseProcess, log: Path) -> list[Point]:
    """Resume a stopped process until it ends; return its system calls in order."""
    _go_on(process, log)
    process.join()
    seen: dict[str, int] = {}
    points = []
    for call, where in _LINE.findall(log.read_text()):
        seen[call] = seen.get(call, 0) + 1
        points.append(Point(call, seen[call], where))
    return points


def go_on_with_kill(process: BaseProcess, point: Point, log: Path) -> None:
    """Resume a stopped process and kill it as it enters a system call."""
    _go_on(process, log, f"inject={point.call}:signal=KILL:when={point.nth}")


def go_on_with_error(process: BaseProcess, point: Point, error: str, log: Path) -> None:
    """Resume a stopped process with a failing system call; `error` is a name such as ENOSPC."""
    _go_on(process, log, f"inject={point.call}:error={error}:when={point.nth}")


def wait_until_stopped(process: BaseProcess, seconds: float = 60) -> None:
    """Wait for a process to stop itself."""
    deadline = time.monotonic() + seconds
    stat = Path(f"/proc/{process.pid}/stat")
    while time.monotonic() < deadline and process.exitcode is None:
        if stat.read_text().rpartition(")")[2].split()[0] in ("T", "t"):
            return
        time.sleep(0.002)
    process.kill()
    raise TimeoutError("a process did not come to where it stops")


def _go_on(process: BaseProcess, log: Path, *expressions: str) -> None:
    """Attach strace to a stopped process and resume it."""
    words = ["strace", "-y", "-p", str(process.pid), "-o", str(log), "-e", f"trace={_FILTER}"]
    for expression in expressions:
        words += ["-e", expression]
    # It ends with the process that it looks at.
    strace = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    told = strace.stderr.readline()
    assert "attached" in told, told
    os.kill(process.pid or 0, signal.SIGCONT)
    process.join()
    strace.communicate()
