"""Which strips go through the network together."""

import asyncio
import copy
import threading

import numpy as np
import pytest

from steelseg.serving.batching import Batcher
from steelseg.serving.metrics import Metrics


@pytest.fixture
def slow(model):
    """Give a model that takes four strips at once, keeps shapes, and waits with the first."""
    slow = copy.copy(model)
    slow.batch_size, slow.shapes = 4, []
    slow.begun, slow.go = threading.Event(), threading.Event()

    def probs_of(images_nhwc):
        slow.shapes.append(images_nhwc.shape[:3])
        slow.begun.set()
        assert slow.go.wait(30)
        return np.concatenate([model.probs_of(image[None]) for image in images_nhwc])

    slow.probs_of = probs_of
    return slow


def predict(strips, *models):
    """Probabilities of strips that come at once, those of one model after those of the other."""

    async def run():
        batcher = Batcher(Metrics())
        jobs = [(model, strip) for model in models for strip in strips]
        waiting = [asyncio.ensure_future(batcher.probs(*jobs[0]))]
        assert await asyncio.to_thread(models[0].begun.wait, 30)
        waiting += [asyncio.ensure_future(batcher.probs(*job)) for job in jobs[1:]]
        await asyncio.sleep(0)
        models[0].go.set()
        try:
            return await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            batcher.stop()

    return asyncio.run(run())


def test_those_that_wait_go_together_by_size(slow, model):
    """The first is predicted alone; then up to four of one size, whatever is between them."""
    random = np.random.default_rng(0)
    widths = (96, 64, 96, 96, 64, 96, 96, 96)
    strips = [random.integers(0, 256, (32, width, 1), np.uint8) for width in widths]
    found = predict(strips, slow)

    assert slow.shapes == [(1, 32, 96), (2, 32, 64), (4, 32, 96), (1, 32, 96)]
    for strip, probs_chw in zip(strips, found, strict=True):
        np.testing.assert_array_equal(probs_chw, model.probs_of(strip[None])[0])


def test_strips_of_two_models_are_never_mixed(slow):
    """While one takes over from the other, both have strips that wait."""
    other = copy.copy(slow)
    strip = np.zeros((32, 96, 1), np.uint8)
    predict([strip] * 3, slow, other)

    assert slow.shapes == [(1, 32, 96), (2, 32, 96), (3, 32, 96)]


def test_a_failure_fails_its_own_batch_alone(slow):
    """Each request of the batch gets the error."""
    failing, real = copy.copy(slow), slow.probs_of

    def probs_of(images_nhwc):
        if images_nhwc.max() == 255:
            raise ValueError("white")
        return real(images_nhwc)

    failing.probs_of = probs_of
    white, black = (
        np.full((32, width, 1), value, np.uint8) for width, value in ((64, 255), (96, 0))
    )
    found = predict([black, white, white, black], failing)

    assert [isinstance(f, ValueError) for f in found] == [False, True, True, False]
