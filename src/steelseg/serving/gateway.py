"""ASGI middleware around the application: limits on request bodies, and headers of every response.

ASGI servers leave three things to the application. The body of a request may take `body_time` to
arrive and have `max_bytes`. A refused client may finish sending before the connection is closed,
because the reset that follows a close with unread data would destroy the response on its way. And
HEAD is answered as GET, without the body.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from steelseg.serving.limits import BodyMemory, Limits


class Gateway:
    """Wrap an ASGI application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        limits: Limits,
        headers: Callable[[], Mapping[str, str]],
        count: Callable[[str, int], None],
    ) -> None:
        """Wrap an application.

        Args:
            app: The application to call.
            limits: Size and deadline of request bodies.
            headers: Gives headers to add to each response that does not set them itself.
            count: Called with the path and status of each response.
        """
        self._app = app
        self._limits = limits
        self._headers = headers
        self._count = count
        self._memory = BodyMemory(limits.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, as ASGI defines it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _Body(Headers(scope=scope), receive, limits=self._limits, memory=self._memory)
        is_head = scope["method"] == "HEAD"

        async def respond(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._count(scope["path"], message["status"])
                headers = MutableHeaders(scope=message)
                for name, value in self._headers().items():
                    headers.setdefault(name, value)
                if body.is_expected:
                    headers["Connection"] = "close"
            elif is_head:
                message = {**message, "body": b""}
            if message["type"] != "http.response.body" or message.get("more_body"):
                await send(message)
                return
            if body.is_expected:
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body"}
            await send(message)

        try:
            await self._app({**scope, "method": "GET"} if is_head else scope, body.receive, respond)
        finally:
            body.release()


class _Body:
    """The body of one request while it arrives."""

    def __init__(
        self, headers: Headers, receive: Receive, *, limits: Limits, memory: BodyMemory
    ) -> None:
        self._receive = receive
        self._limits = limits
        self._memory = memory
        self._length = int(headers.get("content-length", 0))
        self._size = 0
        self._deadline: float | None = None
        self.is_expected = self._length > 0 or "transfer-encoding" in headers

    async def receive(self) -> Message:
        """Return the next part of the body.

        Raises:
            HTTPException: if the body is too large, too slow or incomplete.
        """
        if not self.is_expected:
            return await self._receive()
        if self._length > self._limits.max_bytes:
            raise self._too_large()
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + self._limits.body_time
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(
                408,
                f"The request body arrived too slowly: it may take {self._limits.body_time:g} s.",
            ) from None
        if message["type"] == "http.disconnect":
            self.is_expected = False
            raise HTTPException(400, "The request ended before its body did.")
        self.is_expected = message.get("more_body", False)
        self._hold(len(message.get("body", b"")))
        return message

    def _hold(self, size: int) -> None:
        if self._size + size > self._limits.max_bytes:
            raise self._too_large()
        self._memory.add(size)
        self._size += size

    def _too_large(self) -> HTTPException:
        limit = self._limits.max_bytes
        return HTTPException(413, f"The body is too large: at most {limit} bytes are read.")

    async def discard(self) -> None:
        """Read what is left and drop it, for `linger_time` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.linger_time):
                while (await self._receive()).get("more_body"):
                    pass

    def release(self) -> None:
        """Release the memory of the body."""
        self._memory.release(self._size)
