"""One HTTP/1.1 connection: requests in, answers out, and a deadline on every wait.

h11 parses and frames. The rest is what a server between cameras and one network needs and
servers for websites leave out: a request has `read_time` from its first byte to its last, however
slowly the bytes drip; a request is answered before its body is read where it can be; a client
that is turned away may finish sending, so that no reset swallows its answer.

`on_request` gets each request and gives its answer, or raises `Refusal`.
"""

import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import h11

from steelseg.serving.messages import Answer, Headers, Limits, Refusal, Request

_CHUNK = 64 * 1024
_HEADER_BYTES = 16 * 1024

OnRequest = Callable[[Request], Awaitable[Answer]]


class Held:
    """Bytes of bodies that are being read, on all connections."""

    def __init__(self, most: int) -> None:
        """Take the most bytes there may be."""
        self._most = most
        self._now = 0

    def add(self, count: int) -> None:
        """Count bytes.

        Raises:
            Refusal: if there are too many.
        """
        if self._now + count > self._most:
            raise Refusal(
                503,
                "The bodies being read fill the memory for them.",
                headers=(("Retry-After", "1"),),
            )
        self._now += count

    def drop(self, count: int) -> None:
        """Count bytes no longer."""
        self._now -= count


class Connection:
    """One client, from its first request to its last."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        on_request: OnRequest,
        *,
        limits: Limits,
        held: Held,
        stamp: Callable[[], Headers],
        count: Callable[[str, int], None],
    ) -> None:
        """Take over a socket.

        Args:
            reader: What the client sends.
            writer: What it gets.
            on_request: Answers a request.
            limits: The deadlines and the longest body.
            held: Counts the bytes of bodies.
            stamp: The headers of every answer that does not have them.
            count: Told path and status of every answer; "" of what was no request.
        """
        self._reader = reader
        self._writer = writer
        self._on_request = on_request
        self._limits = limits
        self._held = held
        self._stamp = stamp
        self._count = count
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_BYTES)
        self._loop = asyncio.get_running_loop()
        self._deadline = 0.0
        self._method = ""
        self._has_body = False
        self._is_idle = True
        self._is_closing = False

    async def serve(self) -> None:
        """Answer requests until either side has had enough."""
        is_first = True
        try:
            while not self._is_closing and await self._next_request(is_first=is_first):
                is_first = False
            await self._linger()
        except (OSError, TimeoutError):
            # The client has gone, or takes no answer: there is nobody to tell.
            pass
        finally:
            # Who took the answer has it; a close would wait for who does not.
            self._writer.transport.abort()
            with suppress(OSError):
                await self._writer.wait_closed()

    def stop(self) -> None:
        """Take no further request; the one at work is answered."""
        self._is_closing = True
        if self._is_idle:
            self._writer.close()

    async def _next_request(self, *, is_first: bool) -> bool:
        """Answer one request; whether another may follow."""
        request = None
        try:
            request = await self._read_header(is_first=is_first)
            if request is None:
                return False
            answer = await self._on_request(request)
        except Refusal as refusal:
            answer = refusal.answer
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            answer = Refusal(status, f"This is not an HTTP/1.1 request: {error}.").answer
        except OSError:
            raise
        except Exception:
            # A bug of ours; the other clients shall not notice.
            traceback.print_exc(file=sys.stderr)
            answer = Refusal(500, "The server failed; its log says where.").answer
        self._count(request.path if request else "", answer.status)
        await self._send(answer)
        if not self._h11.our_state is self._h11.their_state is h11.DONE:
            return False
        self._h11.start_next_cycle()
        return True

    async def _read_header(self, *, is_first: bool) -> Request | None:
        """Wait for a request line and its headers; None if the client has no more to ask."""
        self._is_idle = True
        begun = self._loop.time()
        patience = self._limits.stall_time if is_first else self._limits.idle_time
        if not self._h11.trailing_data[0]:
            try:
                async with asyncio.timeout(patience):
                    first = await self._reader.read(_CHUNK)
            except TimeoutError:
                return None
            self._h11.receive_data(first)
        self._is_idle = False
        # Who opens a connection is expected to use it at once.
        self._deadline = (begun if is_first else self._loop.time()) + self._limits.read_time
        event = await self._event()
        if not isinstance(event, h11.Request):
            return None
        return self._to_request(event)

    def _to_request(self, event: h11.Request) -> Request:
        """What the routes need of a request."""
        headers: dict[str, str] = {}
        for name, value in event.headers:
            headers.setdefault(name.decode("ascii"), value.decode("latin-1"))
        self._method = event.method.decode("ascii")
        if event.http_version not in (b"1.0", b"1.1"):
            raise Refusal(505, "This server speaks HTTP/1.1.")
        length = int(headers.get("content-length", 0))
        self._has_body = length > 0 or "transfer-encoding" in headers
        if length > self._limits.max_bytes:
            raise self._too_long()
        if not self._has_body:
            self._h11.next_event()
        try:
            target = urlsplit(event.target.decode("ascii"))
            pairs = parse_qsl(target.query, keep_blank_values=True, max_num_fields=20)
        except ValueError as error:
            raise Refusal(400, f"The request's target cannot be read: {error}.") from None
        query = dict(pairs)
        if len(query) < len(pairs):
            raise Refusal(400, "A parameter of the query is duplicated.")
        return Request(self._method, unquote(target.path), query, headers, self._read_body)

    async def _read_body(self) -> bytes:
        """Read the body to its end."""
        body = bytearray()
        if not self._has_body:
            return b""
        try:
            while isinstance(event := await self._event(), h11.Data):
                if len(body) + len(event.data) > self._limits.max_bytes:
                    raise self._too_long()
                self._held.add(len(event.data))
                body += event.data
        finally:
            self._held.drop(len(body))
        if not isinstance(event, h11.EndOfMessage):
            raise Refusal(400, "The request ended before its body did.")
        return bytes(body)

    async def _event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """The next part of a request.

        Raises:
            Refusal: if it does not come in time.
        """
        while (event := self._h11.next_event()) is h11.NEED_DATA:
            if self._h11.they_are_waiting_for_100_continue:
                await self._write(h11.InformationalResponse(status_code=100, headers=[]))
            now = self._loop.time()
            try:
                async with asyncio.timeout_at(min(self._deadline, now + self._limits.stall_time)):
                    data = await self._reader.read(_CHUNK)
            except TimeoutError:
                raise Refusal(
                    408,
                    f"The request came too slowly: it has {self._limits.read_time:g} s in all, and "
                    f"{self._limits.stall_time:g} s between two pieces.",
                ) from None
            self._h11.receive_data(data)
        return event

    def _too_long(self) -> Refusal:
        most = self._limits.max_bytes
        return Refusal(413, f"The body is too long: at most {most} bytes are read.")

    async def _send(self, answer: Answer) -> None:
        """Send an answer; the connection ends with it unless the request was read to its end."""
        if self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        headers = {"Date": formatdate(usegmt=True), "Content-Type": answer.content_type}
        headers |= {**dict(self._stamp()), **dict(answer.headers)}
        if answer.status != HTTPStatus.NOT_MODIFIED:
            headers["Content-Length"] = str(len(answer.body))
        if self._is_closing or self._h11.their_state is not h11.DONE:
            headers["Connection"] = "close"
        response = h11.Response(
            status_code=answer.status,
            headers=list(headers.items()),
            reason=HTTPStatus(answer.status).phrase,
        )
        head = self._h11.send(response) or b""
        body = b"" if self._method == "HEAD" else self._h11.send(h11.Data(answer.body)) or b""
        end = self._h11.send(h11.EndOfMessage()) or b""
        self._writer.writelines([head, body, end])
        async with asyncio.timeout(self._limits.write_time):
            await self._writer.drain()

    async def _write(self, event: h11.Event) -> None:
        self._writer.write(self._h11.send(event) or b"")
        await self._writer.drain()

    async def _linger(self) -> None:
        """Let the client finish what nobody reads, because a reset would take its answer away."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.linger_time):
                await self._writer.drain()
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                while await self._reader.read(_CHUNK):
                    pass
