"""What goes over the wire: a request as the routes see it, and an answer.

A `Refusal` is an answer that is raised: a status, and one line that says why.
"""

import json
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """A request whose header has been read; its body has not."""

    method: str

    path: str
    """Without the query, percent signs decoded."""

    query: Mapping[str, str]
    """Each parameter once."""

    headers: Mapping[str, str]
    """By name in lower case; the first of equal names."""

    read_body: Callable[[], Coroutine[Any, Any, bytes]]
    """Waits for the whole body; to be called once at most."""


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Headers = ()

    def with_headers(self, *headers: tuple[str, str]) -> "Answer":
        """The same with more headers."""
        return replace(self, headers=(*self.headers, *headers))


class Refusal(Exception):  # noqa: N818
    """A request is answered with an error: the client's, or one of the moment."""

    def __init__(self, status: int, reason: str, *, headers: Headers = ()) -> None:
        """Take the status, one line for people, and more headers."""
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = headers

    @property
    def answer(self) -> Answer:
        """The refusal as a response."""
        return to_json({"error": self.reason}, status=self.status, headers=self.headers)


def to_json(content: object, *, status: int = 200, headers: Headers = ()) -> Answer:
    """Make a response of anything that JSON can hold."""
    return Answer(status, json.dumps(content).encode(), headers=headers)


@dataclass(frozen=True)
class Limits:
    """What a client may ask for. Times are in seconds."""

    queue: int = 3
    """Strips that are predicted or wait for it; more are turned away."""

    max_bytes: int = 32 * 2**20
    """Of a body."""

    max_pixels: int = 8_000_000
    """Of a strip."""

    read_time: float = 8.0
    """From the first byte of a request, or the connection, to its last."""

    stall_time: float = 3.0
    """Between two pieces of a request."""

    idle_time: float = 60.0
    """Between an answer and the next request on its connection."""

    write_time: float = 10.0
    """For a client to take an answer."""

    linger_time: float = 1.5
    """For a client to stop sending once it was turned away."""

    drain_time: float = 30.0
    """For what was accepted to be answered when the server is stopped."""

    max_connections: int = 1000
    """Open at one time."""

    held_bytes: int = 256 * 2**20
    """Of all bodies that are being read."""
