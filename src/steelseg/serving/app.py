"""What the server answers to each path.

A strip is let in before its body is read where there is room, read, let in again, decoded in a
thread, predicted in the network's thread, and answered from a thread: the event loop computes
nothing, so that `/live` answers under any load. The number of strips let in is limited; those
beyond it are refused at once.
"""

import asyncio
import hmac
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from steelseg.data.formats import jpeg, png
from steelseg.data.formats.images import decode_image, measure
from steelseg.errors import DataError, OutOfMemory, SteelsegError
from steelseg.serving.answers import make_answer
from steelseg.serving.batching import Batcher
from steelseg.serving.messages import Answer, Headers, Limits, Refusal, Request, to_json
from steelseg.serving.metrics import CONTENT_TYPE, Metrics
from steelseg.serving.model import Model
from steelseg.serving.openapi import document
from steelseg.serving.options import read_options
from steelseg.serving.page_files import POLICY, read_page


class Slots:
    """Places for strips; whoever reads a body holds none, so a slow sender keeps nobody out."""

    def __init__(self, most: int) -> None:
        """Take the number of places."""
        self.most = most
        self.taken = 0

    def refuse_full(self) -> None:
        """Raise Refusal if every place is taken."""
        if self.taken >= self.most:
            raise Refusal(
                429,
                f"{self.most} strips are predicted or wait for it already. Send this one again "
                "in a second.",
                headers=(("Retry-After", "1"),),
            )

    @contextmanager
    def take(self) -> Iterator[None]:
        """Hold a place while the block runs; raises as `refuse_full`."""
        self.refuse_full()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


# Decoding and answering leave the cores to the network most of the time.
_THREADS = 2

_T = TypeVar("_T")
_Handler = Callable[[Request], Awaitable[Answer]]


class App:
    """The routes, and the model behind them."""

    def __init__(
        self,
        model: Model,
        *,
        limits: Limits,
        load_model: Callable[[bytes], Model],
        admin_token: str | None = None,
    ) -> None:
        """Start the threads; to be called where the event loop runs.

        Args:
            model: What answers first.
            limits: What a client may ask for.
            load_model: Loads what the body of `POST /v1/model` names.
            admin_token: Who knows it may change the model; None lets nobody.
        """
        self._model = model
        self._limits = limits
        self._load_model = load_model
        self._admin_token = admin_token
        self._slots = Slots(limits.queue)
        self.metrics = Metrics()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="strip")
        self._batcher = Batcher(self.metrics)
        self._swapping = asyncio.Lock()
        self._is_draining = False
        self._page = read_page()
        self._routes: dict[str, dict[str, _Handler]] = {
            "/v1/predict": {"POST": self._predict},
            "/v1/model": {"GET": self._describe, "POST": self._swap},
            "/live": {"GET": self._live},
            "/ready": {"GET": self._ready},
            "/metrics": {"GET": self._metrics},
            "/openapi.json": {"GET": self._openapi},
        }
        self.metrics.gauge("queue_strips", "Strips let in.", lambda: self._slots.taken)
        self.metrics.gauge("queue_limit", "Strips that are let in.", lambda: self._slots.most)

    def stamp(self) -> Headers:
        """Headers of every answer: who answers, and what a browser may do with it."""
        return (
            ("X-Model", self._model.sha256),
            ("Cache-Control", "no-store"),
            ("Content-Security-Policy", POLICY),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
        )

    async def answer(self, request: Request) -> Answer:
        """Answer a request, or raise what it is refused for."""
        return await self._handler(request)(request)

    def count(self, path: str, status: int) -> None:
        """Count an answer; paths that are not there count as one."""
        route = path if path in self._routes else "page" if path in self._page else "other"
        self.metrics.count_request(route, status)

    def drain(self) -> None:
        """Let no more strips in."""
        self._is_draining = True

    def stop(self) -> None:
        """End the threads once they are done."""
        self._threads.shutdown()
        self._batcher.stop()

    def _handler(self, request: Request) -> _Handler:
        """What answers a path and a method."""
        if request.path in self._page:
            handlers: Mapping[str, _Handler] = {"GET": self._show}
        elif request.path in self._routes:
            handlers = self._routes[request.path]
        else:
            raise Refusal(404, "There is nothing here. /openapi.json says what there is.")
        method = "GET" if request.method == "HEAD" else request.method
        if method not in handlers:
            allowed = [*handlers, *(["HEAD"] if "GET" in handlers else [])]
            raise Refusal(
                405,
                f"{request.path} takes {' and '.join(allowed)} alone.",
                headers=(("Allow", ", ".join(allowed)),),
            )
        return handlers[method]

    async def _predict(self, request: Request) -> Answer:
        """Answer a strip."""
        begun = time.perf_counter()
        model = self._model
        options = read_options(request.query, model.masks)
        self._refuse_draining()
        self._slots.refuse_full()
        content = await request.read_body()
        with self._slots.take():
            image_hwc = await self._in_thread("decode", partial(self._decode, content, model))
            probs_chw = await self._probs(model, image_hwc)
            answer = await self._in_thread(
                "answer",
                partial(
                    make_answer,
                    model,
                    options,
                    image_hwc,
                    probs_chw,
                    begun=begun,
                    takes_gzip="gzip" in request.headers.get("accept-encoding", ""),
                ),
            )
        self.metrics.count_latency(time.perf_counter() - begun)
        return answer.with_headers(("X-Model", model.sha256))

    def _decode(self, content: bytes, model: Model) -> NDArray[np.uint8]:
        """Decode the body of a strip."""
        try:
            height, width = measure(content)
            most = self._limits.max_pixels
            if height * width > most:
                raise Refusal(
                    413, f"The image has {height}x{width} pixels; at most {most} are read."
                )
            return decode_image(content, channels=model.channels)
        except DataError as error:
            is_image = content.startswith((png.START, jpeg.START))
            reason = str(error)
            raise Refusal(422 if is_image else 415, reason[:1].upper() + reason[1:]) from None

    async def _probs(self, model: Model, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of a strip."""
        try:
            return await self._batcher.probs(model, image_hwc)
        except OutOfMemory:
            traceback.print_exc(file=sys.stderr)
            high, wide = image_hwc.shape[:2]
            raise Refusal(
                503, f"There is not enough memory for this image of {high}x{wide} pixels."
            ) from None
        except SteelsegError as error:
            raise Refusal(422, str(error)) from None

    async def _in_thread(self, stage: str, work: Callable[[], _T]) -> _T:
        """Do something in a thread, and count its time."""

        def timed() -> _T:
            with self.metrics.stage(stage):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)

    async def _describe(self, _request: Request) -> Answer:
        """Say which model answers."""
        limits = {"max_bytes": self._limits.max_bytes, "max_pixels": self._limits.max_pixels}
        return to_json({**self._model.describe(), "limits": limits})

    async def _swap(self, request: Request) -> Answer:
        """Load another model, and let it take over; requests under way keep theirs."""
        self._refuse_strangers(request)
        if self._swapping.locked():
            raise Refusal(409, "A model is being loaded already.")
        async with self._swapping:
            body = await request.read_body()
            loop = asyncio.get_running_loop()
            try:
                self._model = await loop.run_in_executor(None, self._load_model, body)
            except SteelsegError as error:
                raise Refusal(422, str(error)) from None
            except OSError as error:
                # A folder that is being replaced at this moment, for one.
                raise Refusal(422, f"{error.filename}: {error.strerror}.") from None
        return await self._describe(request)

    def _refuse_strangers(self, request: Request) -> None:
        """Raise Refusal unless the request has the admin's token."""
        if self._admin_token is None:
            raise Refusal(403, "This server was started without --admin-token-file.")
        given = request.headers.get("authorization", "").encode()
        if not hmac.compare_digest(given, f"Bearer {self._admin_token}".encode()):
            raise Refusal(
                401,
                "Wrong token. Expected the header Authorization: Bearer TOKEN.",
                headers=(("WWW-Authenticate", "Bearer"),),
            )

    def _refuse_draining(self) -> None:
        """Raise Refusal if the server is about to end."""
        if self._is_draining:
            raise Refusal(503, "The server is stopping.", headers=(("Retry-After", "5"),))

    async def _live(self, _request: Request) -> Answer:
        return to_json({"live": True})

    async def _ready(self, _request: Request) -> Answer:
        self._refuse_draining()
        return to_json({"ready": True})

    async def _metrics(self, _request: Request) -> Answer:
        text = self.metrics.text(self._model.sha256)
        return Answer(body=text.encode(), content_type=CONTENT_TYPE)

    async def _openapi(self, _request: Request) -> Answer:
        return to_json(document(self._limits))

    async def _show(self, request: Request) -> Answer:
        """Send a file of the page, unless the browser has it."""
        answer = self._page[request.path]
        if request.headers.get("if-none-match") == dict(answer.headers)["ETag"]:
            return Answer(304, content_type=answer.content_type, headers=answer.headers)
        return answer
