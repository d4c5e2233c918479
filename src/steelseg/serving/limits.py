"""Limits on requests: sizes, deadlines, and how many are accepted at a time."""

from dataclasses import dataclass

from starlette.exceptions import HTTPException


@dataclass(frozen=True)
class Limits:
    """What a client may use. Times are in seconds."""

    queue: int = 3
    """Strips in prediction or waiting for it; further ones are refused."""

    max_bytes: int = 32 * 2**20
    """Size of a request body, in bytes."""

    max_pixels: int = 8_000_000
    """Height times width of a strip."""

    header_time: float = 3.0
    """From connecting, or the first byte of a later request, to the end of the request header."""

    body_time: float = 6.0
    """From the end of the header to the end of the body."""

    idle_time: int = 60
    """Between a response and the next request on the same connection."""

    write_time: float = 10.0
    """For a client to receive a response that fills its buffers."""

    linger_time: float = 1.5
    """For a refused client to finish sending, so that it can read the response."""

    drain_time: int = 30
    """For accepted requests to be answered after the server is told to stop."""

    max_connections: int = 1000
    """Open connections; further ones are closed."""

    max_body_bytes: int = 256 * 2**20
    """Size of all request bodies in memory together, in bytes."""


class BodyMemory:
    """Bytes of request bodies in memory, over all connections."""

    def __init__(self, limit: int) -> None:
        """Set the largest number of bytes."""
        self._limit = limit
        self._used = 0

    def add(self, size: int) -> None:
        """Count bytes that have arrived.

        Raises:
            HTTPException: 503 if that is too many.
        """
        if self._used + size > self._limit:
            raise HTTPException(
                503,
                "The request bodies in memory have reached their limit.",
                headers={"Retry-After": "1"},
            )
        self._used += size

    def release(self, size: int) -> None:
        """Stop counting bytes of a request that is done."""
        self._used -= size
