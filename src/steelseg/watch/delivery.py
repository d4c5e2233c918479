"""Deliver the lines of results.jsonl to a receiver: each at least once, in order, none lost.

results.jsonl itself is the queue: a small file next to it holds the byte up to which the receiver
has confirmed. So an outage of days loses nothing, and delivery continues after a kill; a line that
was confirmed at the moment of a kill is sent twice. While a receiver cannot be reached, the line is
sent again, first after one second, eventually once a minute. A line that the receiver rejects
for good is stored in another file, so that it does not block the others.
"""

import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from steelseg.errors import ConfigError, DataError
from steelseg.files.atomic import write_text

Send = Callable[[bytes], None]
"""Sends one line to a receiver; raises `NotConfirmed` if the receiver does not confirm it."""

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 60.0


class NotConfirmed(Exception):  # noqa: N818
    """A receiver did not confirm a line."""

    def __init__(self, reason: str, *, is_permanent: bool = False) -> None:
        """Take the reason, and whether the receiver will never take this line."""
        super().__init__(reason)
        self.is_permanent = is_permanent


class Delivery:
    """A thread that delivers lines to one receiver."""

    def __init__(
        self, name: str, results: Path, send: Send, *, size: int, first_wait: float = _FIRST_WAIT
    ) -> None:
        """Resume from the stored position; nothing is sent before `start`.

        Args:
            name: webhook or mqtt, for the names of its files and for messages.
            results: The file of lines.
            send: Sends one line to the receiver.
            size: Bytes of `results` that are safely on disk.
            first_wait: Seconds before a line is sent for the second time.

        Raises:
            DataError: if the stored position does not match the results.
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
        """Number of bytes that the receiver has not confirmed."""
        return self._size - self.position

    def start(self) -> None:
        """Start to deliver."""
        self._thread.start()

    def more(self, size: int) -> None:
        """Announce that the results have grown; raise the error that ended the thread, if any."""
        if self._failure is not None:
            raise self._failure
        self._size = size
        self._woken.set()

    def stop(self, *, seconds: float) -> None:
        """Stop after the current line; the next process delivers the rest."""
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
            # An error in this thread would go unnoticed; `more` raises it in the main thread.
            self._failure = error

    def _deliver(self, line: bytes) -> None:
        """Send one line until it is confirmed, rejected for good, or delivery is stopped."""
        wait = self._first_wait
        while not self._is_stopping.is_set():
            try:
                self._send(line)
            except NotConfirmed as fault:
                if fault.is_permanent:
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
        """Store a line that the receiver will never take."""
        print(
            f"warning: {self._name}: {reason}. The line is stored in {self._refused}.",
            file=sys.stderr,
            flush=True,
        )
        with self._refused.open("ab") as file:
            file.write(line)


def _read_position(path: Path, results: Path, size: int) -> int:
    """Read the byte up to which lines were confirmed, or raise DataError."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return 0
    position = int(text) if text.isdecimal() and len(text) < 19 else -1
    with results.open("rb") as file:
        file.seek(max(position - 1, 0))
        if not 0 <= position <= size or (position and file.read(1) != b"\n"):
            raise DataError(
                f"{path} says {text[:20]!r}, which is not the end of a line in {results.name}. "
                "Remove the file to deliver every line again."
            )
    return position


def split_url(
    url: str, *, option: str, schemes: Collection[str], example: str, secret: str
) -> SplitResult:
    """Split the URL of a receiver, whose host and port are valid then.

    Args:
        url: The URL, as the user gave it.
        option: The option it was given by, for messages.
        schemes: Accepted schemes.
        example: A valid URL, for messages.
        secret: Environment variables for credentials, for messages.

    Raises:
        ConfigError: if it is not such a URL, or contains a password.
    """
    try:
        parts = urlsplit(url)
        # Reading the port validates it.
        is_valid = bool(parts.hostname) and parts.port != 0 and parts.scheme in schemes
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ConfigError(f"{option} {url!r} is not a URL such as {example}.")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(f"{option}: do not put a password into the URL; set {secret}.")
    return parts
