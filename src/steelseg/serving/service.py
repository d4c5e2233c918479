"""The model in use, and the work that a strip goes through.

A strip is decoded in a thread, predicted in the network's thread, and its response is made in a
thread. The event loop does no computation, so `/live` answers under any load. The number of strips
in progress is limited; further ones are refused at once.
"""

import asyncio
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.exceptions import HTTPException
from starlette.responses import Response

from steelseg.data.formats import images
from steelseg.errors import DataError, OutOfMemory, SteelsegError
from steelseg.serving.answers import make_answer
from steelseg.serving.batching import Batcher
from steelseg.serving.limits import Limits
from steelseg.serving.metrics import Metrics
from steelseg.serving.model import Model
from steelseg.serving.options import PredictQuery, read_options

# Decoding and answering leave the cores to the network most of the time.
_THREADS = 2

_T = TypeVar("_T")


class Service:
    """Predicts strips with a model that can be replaced while it runs."""

    def __init__(
        self, model: Model, *, limits: Limits, load_model: Callable[[bytes], Model]
    ) -> None:
        """Start the threads; `close` ends them.

        Args:
            model: The first model.
            limits: What a client may use.
            load_model: Loads the model that the body of `POST /v1/model` names.
        """
        self.limits = limits
        self.metrics = Metrics()
        self._load_model = load_model
        self._places = asyncio.Semaphore(limits.queue)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="strip")
        self._batcher = Batcher(self.metrics)
        self._loading = asyncio.Lock()
        self.metrics.queue_limit.set(limits.queue)
        self._use(model)

    @property
    def model(self) -> Model:
        """The model that new requests use."""
        return self._model

    def _use(self, model: Model) -> None:
        self._model = model
        self.metrics.model.info({"sha256": model.sha256})

    def close(self) -> None:
        """End the threads once their work is done."""
        self._threads.shutdown()
        self._batcher.stop()

    def describe(self) -> dict[str, Any]:
        """Describe the model and which images a request may send; see `schemas.ModelInfo`."""
        formats = [
            {"name": kind.NAME, "media_type": kind.MEDIA_TYPE, "extensions": [*kind.EXTENSIONS]}
            for kind in images.FORMATS
        ]
        limits = {"max_bytes": self.limits.max_bytes, "max_pixels": self.limits.max_pixels}
        return {**self._model.describe(), "image_formats": formats, "limits": limits}

    async def change_model(self, read_body: Callable[[], Awaitable[bytes]]) -> None:
        """Load another model; requests in progress keep theirs.

        Args:
            read_body: Waits for the body of the request, which names the model.

        Raises:
            HTTPException: if the model cannot be used, or another is being loaded.
        """
        if self._loading.locked():
            raise HTTPException(409, "Another model is being loaded.")
        async with self._loading:
            body = await read_body()
            loop = asyncio.get_running_loop()
            try:
                self._use(await loop.run_in_executor(None, self._load_model, body))
            except SteelsegError as error:
                raise HTTPException(422, str(error)) from None
            except OSError as error:
                # For example, a folder that is being replaced at this moment.
                raise HTTPException(422, f"{error.filename}: {error.strerror}.") from None

    async def predict(
        self,
        read_body: Callable[[], Awaitable[bytes]],
        query: PredictQuery,
        *,
        accepts_gzip: bool,
    ) -> Response:
        """Predict a strip and make the response.

        Args:
            read_body: Waits for the body of the request, an image file.
            query: The parameters of the request.
            accepts_gzip: Whether the client accepts gzip.

        Raises:
            HTTPException: if the request is refused.
        """
        begun = time.perf_counter()
        model = self._model
        options = read_options(query, model.masks)
        self._refuse_if_full()
        content = await read_body()
        # A client occupies no place in the queue while its body arrives, so slow ones block nobody.
        self._refuse_if_full()
        async with self._places:
            with self.metrics.queue_strips.track_inprogress():
                image_hwc = await self._in_thread("decode", partial(self._decode, content, model))
                probs_chw = await self._probs(model, image_hwc)
                answer = partial(make_answer, model, options, image_hwc, probs_chw)
                response = await self._in_thread(
                    "answer", partial(answer, begun=begun, accepts_gzip=accepts_gzip)
                )
        self.metrics.predict_seconds.observe(time.perf_counter() - begun)
        response.headers["X-Model"] = model.sha256
        return response

    def _refuse_if_full(self) -> None:
        """Raise HTTPException 429 if every place in the queue is taken."""
        if self._places.locked():
            raise HTTPException(
                429,
                f"{self.limits.queue} strips are already in progress or waiting. Send this one "
                "again in a second.",
                headers={"Retry-After": "1"},
            )

    def _decode(self, content: bytes, model: Model) -> NDArray[np.uint8]:
        """Decode the body of a request."""
        try:
            height, width = images.measure(content)
            limit = self.limits.max_pixels
            if height * width > limit:
                raise HTTPException(
                    413, f"The image has {height}x{width} pixels; at most {limit} are read."
                )
            return images.decode_image(content, channels=model.channels)
        except DataError as error:
            status = 422 if images.find_format(content) else 415
            reason = str(error)
            raise HTTPException(status, reason[:1].upper() + reason[1:]) from None

    async def _probs(self, model: Model, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict the probabilities of a strip."""
        try:
            return await self._batcher.probs(model, image_hwc)
        except OutOfMemory:
            traceback.print_exc(file=sys.stderr)
            height, width = image_hwc.shape[:2]
            raise HTTPException(
                503, f"There is not enough memory for this image of {height}x{width} pixels."
            ) from None
        except SteelsegError as error:
            raise HTTPException(422, str(error)) from None

    async def _in_thread(self, stage: str, work: Callable[[], _T]) -> _T:
        """Run a function in a thread and measure its time."""

        def timed() -> _T:
            with self.metrics.stage(stage):
                return work()

        return await asyncio.get_running_loop().run_in_executor(self._threads, timed)
