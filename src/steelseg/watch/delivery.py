"""Lines of results.jsonl brought to a receiver, each at least once, in order, none lost.

The file itself is what waits: a small file beside it says up to which byte the receiver has
confirmed. So an outage of days costs nothing, and after a kill delivery goes on; a line that was
confirmed in the moment of a kill comes twice. While a receiver cannot be reached the line is sent
again, first after a second, at last once a minute. A line that the receiver will never take is set
aside, so that it does not hold up the others.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path

from steelseg.errors import DataError
from steelseg.files.atomic import write_text

Send = Callable[[bytes], None]
"""Gives one line to a receiver; raises `NotTaken` if it did not confirm it."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0


class NotTaken(Exception):  # noqa: N818
    """A receiver did not take a line."""

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        """Say why, and whether the same line would never be taken."""
        super().__init__(reason)
        self.for_good = for_good


class Delivery:
    """A thread that brings lines to one receiver."""

    def __init__(
        self, name: str, results: Path, send: Send, *, size: int, first_wait: float = _FIRST_WAIT
    ) -> None:
        """Go on where the last process was; `start` begins.

        Args:
            name: webhook or mqtt: of its files beside the results, and of messages.
            results: The file of lines.
            send: What gives a line to the receiver.
            size: Bytes of `results` that are on the disk for good.
            first_wait: Seconds after which a line is sent for the second time.

        Raises:
            DataError: if the note of what was confirmed does not fit the results.
        """
        self._name = name
        self._results = results
        self._send = send
        self._first_wait = first_wait
        self._cursor = results.with_name(f"{name}.position")
        self._refused = results.with_name(f"{name}.refused.jsonl")
        self.position = _read_position(self._cursor, results, size)
        self._size = size
        self._woken = threading.Event()
        self._is_stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @property
    def behind(self) -> int:
        """Bytes that the receiver has not confirmed."""
        return self._size - self.position

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def more(self, size: int) -> None:
        """Say that the results have grown; raise what ended the thread, if anything did."""
        if self._failure is not None:
            raise self._failure
        self._size = size
        self._woken.set()

    def stop(self, *, seconds: float) -> None:
        """End after the line at hand; what is left is delivered by the next process."""
        self._is_stopping.set()
        self._woken.set()
        self._thread.join(seconds)

    def _run(self) -> None:
        try:
            with self._results.open("rb") as lines:
                lines.seek(self.position)
                while not self._is_stopping.is_set():
                    self._woken.clear()
                    while self.position < self._size and not self._is_stopping.is_set():
                        self._deliver(lines.readline())
                    self._woken.wait(1.0)
        except BaseException as error:
            # Of this thread nobody would hear; `more` raises it where it is heard.
            self._failure = error

    def _deliver(self, line: bytes) -> None:
        """Send one line until it is taken, set aside, or somebody stops us."""
        wait = self._first_wait
        while not self._is_stopping.is_set():
            try:
                self._send(line)
            except NotTaken as fault:
                if fault.for_good:
                    self._set_aside(line, str(fault))
                    break
                if wait == self._first_wait:
                    print(
                        f"warning: {self._name}: {fault}. Trying again; nothing is lost.",
                        file=sys.stderr,
                        flush=True,
                    )
                self._is_stopping.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                break
        else:
            return
        write_text(self._cursor, f"{self.position + len(line)}\n")
        self.position += len(line)

    def _set_aside(self, line: bytes, reason: str) -> None:
        """Keep a line that the receiver will never take."""
        print(
            f"warning: {self._name}: {reason}. The line is kept in {self._refused}.",
            file=sys.stderr,
            flush=True,
        )
        with self._refused.open("ab") as file:
            file.write(line)


def _read_position(path: Path, results: Path, size: int) -> int:
    """Read up to which byte lines were confirmed, or raise DataError."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return 0
    position = int(text) if text.isdecimal() and len(text) < 19 else -1
    with results.open("rb") as file:
        file.seek(max(position - 1, 0))
        if not 0 <= position <= size or (position and file.read(1) != b"\n"):
            raise DataError(
                f"{path} says {text[:20]!r}, where no line of {results.name} ends. Remove it to "
                "deliver every line again."
            )
    return position
