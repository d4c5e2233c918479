"""The one thread that calls the network, and the batches it takes.

Strips that wait when it comes for more go together, as many of one size and one model as that
model takes at once: nobody waits for a batch to fill. `Predictor.probs_of` gives each strip the
bits that it has alone, where the network computes the strips of a batch one by one or side by
side; that is everywhere but on a GPU.
"""

import asyncio
import queue
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelseg.serving.metrics import Metrics
from steelseg.serving.model import Model


@dataclass(frozen=True, eq=False)
class _Job:
    """A strip that waits for its probabilities."""

    model: Model
    image_hwc: NDArray[np.uint8]
    done: asyncio.Future[NDArray[np.float32]]

    def fits(self, other: "_Job") -> bool:
        """Whether two strips can go through a network together."""
        return self.model is other.model and self.image_hwc.shape == other.image_hwc.shape


class Batcher:
    """A thread with a queue; who may put how much into it is decided elsewhere."""

    def __init__(self, metrics: Metrics) -> None:
        """Start the thread; to be called where the event loop runs."""
        self._loop = asyncio.get_running_loop()
        self._metrics = metrics
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    async def probs(self, model: Model, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities of a strip, shape (classes, H, W); raises what the network raised."""
        job = _Job(model, image_hwc, self._loop.create_future())
        self._jobs.put(job)
        return await job.done

    def stop(self) -> None:
        """End the thread once it is done with what it has."""
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        """Predict batch after batch."""
        waiting: list[_Job] = []
        while True:
            job = waiting.pop(0) if waiting else self._jobs.get()
            if job is None:
                return
            batch, waiting = self._gather(job, waiting)
            self._predict(batch)

    def _gather(self, first: _Job, waiting: list[_Job]) -> tuple[list[_Job], list[_Job]]:
        """What goes with a strip, and what is left for later."""
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            waiting.append(job)
        batch = [first, *(job for job in waiting if job.fits(first))][: first.model.batch_size]
        return batch, [job for job in waiting if job not in batch]

    def _predict(self, batch: list[_Job]) -> None:
        """Predict one batch, and wake those who wait for it."""
        try:
            with self._metrics.stage("network"):
                images_nhwc = np.stack([job.image_hwc for job in batch])
                probs_nchw = batch[0].model.probs_of(images_nhwc)
        except Exception as error:
            # Whatever it is, somebody waits for it and reports it.
            self._loop.call_soon_threadsafe(_fail, batch, error)
            return
        self._metrics.count_batch(len(batch))
        self._loop.call_soon_threadsafe(_deliver, batch, probs_nchw)


def _deliver(batch: list[_Job], probs_nchw: NDArray[np.float32]) -> None:
    for job, probs_chw in zip(batch, probs_nchw, strict=True):
        if not job.done.done():
            job.done.set_result(probs_chw)


def _fail(batch: list[_Job], error: Exception) -> None:
    for job in batch:
        if not job.done.done():
            job.done.set_exception(error)
