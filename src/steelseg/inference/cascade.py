"""Two looks at a strip: a cheap network skips what is surely clean, the others see the rest.

Strips come out in the order they went in. A skipped strip has probability 0 everywhere.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from steelseg.evaluation.first_look import suspicion
from steelseg.evaluation.postprocess import to_uint8
from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import Batch, ForwardPlan, stack

Predicted = tuple[str, NDArray[np.uint8], NDArray[np.float32]]
"""image_id, image_hwc and probs_chw."""

# Strips that wait for as many suspicious ones as the second look takes at once.
_MOST_WAITING = 32


class Cascade:
    """A first look before a second one."""

    def __init__(
        self,
        first: Ensemble,
        second: Ensemble,
        *,
        first_plan: ForwardPlan,
        cut: float,
        batch_size: int,
        num_classes: int,
    ) -> None:
        """Put one before the other.

        Args:
            first: The cheap network.
            second: What looks at the rest.
            first_plan: Flips, crops and precision of the first look.
            cut: Strips of a lower suspicion are clean.
            batch_size: Most strips that the second look takes at once.
            num_classes: Classes C of the second look.
        """
        self._first = first
        self._first_plan = first_plan
        self._cut = cut
        self._second = second
        self._batch_size = batch_size
        self._num_classes = num_classes

    def predict(self, batches: Iterable[Batch], plan: ForwardPlan) -> Iterator[Predicted]:
        """Predict strips, most of the clean ones by a first look alone.

        Args:
            batches: image_ids and images_nhwc, as `forward.batches` gives them.
            plan: Flips, crops and precision of the second look.

        Yields:
            image_id, image_hwc and probs_chw of each strip, in order.
        """
        waiting: list[tuple[str, NDArray[np.uint8], bool]] = []
        for image_id, image_hwc, probs_chw in self._first.predict(batches, self._first_plan):
            waiting.append((image_id, image_hwc, suspicion(to_uint8(probs_chw)) >= self._cut))
            if sum(w[2] for w in waiting) == self._batch_size or len(waiting) == _MOST_WAITING:
                yield from self._look_again(waiting, plan)
                waiting = []
        yield from self._look_again(waiting, plan)

    def predict_now(self, images_nhwc: NDArray[np.uint8], plan: ForwardPlan) -> NDArray[np.float32]:
        """Probabilities of one batch, shape (N, C, H, W), computed in the caller's thread."""
        firsts_nchw = self._first.predict_now(images_nhwc, self._first_plan)
        look = [suspicion(to_uint8(probs_chw)) >= self._cut for probs_chw in firsts_nchw]
        probs_nchw = np.zeros(
            (len(images_nhwc), self._num_classes, *images_nhwc.shape[1:3]), np.float32
        )
        if any(look):
            probs_nchw[look] = self._second.predict_now(images_nhwc[look], plan)
        return probs_nchw

    def _look_again(
        self, waiting: list[tuple[str, NDArray[np.uint8], bool]], plan: ForwardPlan
    ) -> Iterator[Predicted]:
        """Predict the suspicious ones among some strips."""
        suspicious = ((image_id, image_hwc) for image_id, image_hwc, look in waiting if look)
        predicted = self._second.predict(stack(suspicious, batch_size=self._batch_size), plan)
        for image_id, image_hwc, look in waiting:
            if look:
                yield next(predicted)
            else:
                shape = self._num_classes, *image_hwc.shape[:2]
                yield image_id, image_hwc, np.zeros(shape, np.float32)
