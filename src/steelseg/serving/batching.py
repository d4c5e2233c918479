"""The one thread that calls the network, and the batches it forms.

When the thread is free, it takes the waiting strips of one size and one model, as many as that
model computes at a time; it never waits for a batch to fill. `Predictor.probs_of` gives each strip
the same bits as alone where the network computes the strips of a batch one by one or side by side:
everywhere except on a GPU.
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
        """Return whether two strips can go through the network together."""
        return self.model is other.model and self.image_hwc.shape == other.image_hwc.shape

    def deliver(self, probs_chw: NDArray[np.float32] | Exception) -> None:
        """Wake the request that waits for a strip; may be called from any thread."""
        self.done.get_loop().call_soon_threadsafe(_resolve, self.done, probs_chw)


def _resolve(
    done: asyncio.Future[NDArray[np.float32]], result: NDArray[np.float32] | Exception
) -> None:
    if done.done():
        return
    if isinstance(result, Exception):
        done.set_exception(result)
    else:
        done.set_result(result)


class Batcher:
    """A thread with a queue; `Slots` limits how much is put into it."""

    def __init__(self, metrics: Metrics) -> None:
        """Start the thread."""
        self._metrics = metrics
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="network", daemon=True)
        self._thread.start()

    async def probs(self, model: Model, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Predict a strip: probabilities of shape (classes, H, W).

        Raises:
            Exception: what the network raised.
        """
        job = _Job(model, image_hwc, asyncio.get_running_loop().create_future())
        self._jobs.put(job)
        return await job.done

    def stop(self) -> None:
        """End the thread once its work is done."""
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
        """Return the batch of a strip, and the strips left for later."""
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
        """Predict one batch and deliver it."""
        try:
            with self._metrics.stage("network"):
                images_nhwc = np.stack([job.image_hwc for job in batch])
                probs_nchw = batch[0].model.probs_of(images_nhwc)
        except Exception as error:
            # Any error: each request waits for it and reports it.
            for job in batch:
                job.deliver(error)
            return
        self._metrics.batches.inc()
        self._metrics.strips.inc(len(batch))
        for job, probs_chw in zip(batch, probs_nchw, strict=True):
            job.deliver(probs_chw)
