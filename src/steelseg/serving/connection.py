"""uvicorn's HTTP/1.1 connection, with the deadlines that uvicorn does not have.

uvicorn waits without limit for the header of a request and for a client that does not read its
response. Here such a connection is closed.
"""

import asyncio
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from steelseg.serving.limits import Limits


class Connection(H11Protocol):
    """One client, from connecting to disconnecting."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: Limits,
    ) -> None:
        """Take uvicorn's arguments and the deadlines."""
        super().__init__(config, server_state, app_state, _loop)
        self._limits = limits
        self._header_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, unless there are too many."""
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(self._limits.header_time, transport.abort)
        if len(self.connections) > self._limits.max_connections:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse what the client sent; the header of a request has a deadline."""
        if self._header_timer is None and self.conn.their_state is h11.IDLE:
            self._header_timer = self.loop.call_later(
                self._limits.header_time, self.transport.abort
            )
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_header_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse malformed HTTP; a request whose body it interrupts gets no other response."""
        if self.cycle and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the response to a request that is complete."""
        is_waiting = bool(
            self.cycle and not self.cycle.response_complete and not self.cycle.more_body
        )
        if is_waiting:
            self.cycle.keep_alive = False
        return is_waiting

    def pause_writing(self) -> None:
        """Give the client time to read what fills its buffers."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(self._limits.write_time, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the deadline: the client has read the response."""
        super().resume_writing()
        self._stop_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadlines."""
        self._stop_header_timer()
        self._stop_write_timer()
        super().connection_lost(exc)

    def _stop_header_timer(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
