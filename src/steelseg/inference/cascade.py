"""Two looks at a strip: a cheap network skips what is surely clean, the others see the rest.

Strips come out in the order they went in. A skipped strip has probability 0 everywhere. While the
caller has the strips of one group, the second look is at the next, and the first at the one behind.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import Batch, ForwardPlan, stack
from steelseg.inference.prefetch import one_ahead
from steelseg.scoring.screening import defect_score_of

Predicted = tuple[str, NDArray[np.uint8], NDArray[np.float32]]
"""image_id, image_hwc and probs_chw."""

_Group: TypeAlias = list[tuple[str, NDArray[np.uint8], bool]]
"""image_id, image_hwc of some strips, and whether each is suspicious."""

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
        by_presence: bool = False,
    ) -> None:
        """Put one before the other.

        Args:
            first: The cheap network.
            second: What looks at the rest.
            first_plan: Flips, crops and precision of the first look.
            cut: Strips of a lower suspicion are clean.
            batch_size: Most strips that the second look takes at once.
            num_classes: Classes C of the second look.
            by_presence: Whether the cheap network is a classifier.
        """
        self._first = first
        self._first_plan = first_plan
        self._cut = cut
        self._second = second
        self._batch_size = batch_size
        self._num_classes = num_classes
        self._by_presence = by_presence
        self._zeros_chw = np.zeros((0, 0, 0), np.float32)

    def predict(self, batches: Iterable[Batch], plan: ForwardPlan) -> Iterator[Predicted]:
        """Predict strips, most of the clean ones by a first look alone.

        Args:
            batches: image_ids and images_nhwc, as `forward.batches` gives them.
            plan: Flips, crops and precision of the second look.

        Yields:
            image_id, image_hwc and probs_chw of each strip, in order.
        """
        with closing(one_ahead(self._groups(batches))) as groups:
            looks = (self._look_again(group, plan) for group in groups)
            with closing(one_ahead(looks)) as predicted:
                for strips in predicted:
                    yield from strips

    def predict_now(self, images_nhwc: NDArray[np.uint8], plan: ForwardPlan) -> NDArray[np.float32]:
        """Probabilities of one batch, shape (N, C, H, W), computed in the caller's thread."""
        firsts = self._first.answer_now(images_nhwc, self._first_plan)
        look = [self._is_suspicious(*answer) for answer in zip(*firsts, strict=True)]
        probs_nchw = np.zeros(
            (len(images_nhwc), self._num_classes, *images_nhwc.shape[1:3]), np.float32
        )
        if any(look):
            probs_nchw[look] = self._second.predict_now(images_nhwc[look], plan)
        return probs_nchw

    def _is_suspicious(
        self, probs_chw: NDArray[np.float32], presence_c: NDArray[np.float32]
    ) -> bool:
        """Whether a strip needs a second look."""
        return defect_score_of(probs_chw, presence_c, by_presence=self._by_presence) >= self._cut

    def _groups(self, batches: Iterable[Batch]) -> Iterator[_Group]:
        """Look first, until a second look has as many strips as it takes at once."""
        waiting: _Group = []
        with closing(self._first.predict_open(batches, self._first_plan)) as looked:
            for image_id, image_hwc, *answer in looked:
                waiting.append((image_id, image_hwc, self._is_suspicious(*answer)))
                if sum(w[2] for w in waiting) == self._batch_size or len(waiting) == _MOST_WAITING:
                    yield waiting
                    waiting = []
        yield waiting

    def _look_again(self, group: _Group, plan: ForwardPlan) -> list[Predicted]:
        """Predict the suspicious ones among some strips."""
        suspicious = ((image_id, image_hwc) for image_id, image_hwc, look in group if look)
        predicted = self._second.predict(stack(suspicious, batch_size=self._batch_size), plan)
        return [
            next(predicted) if look else (image_id, image_hwc, self._empty(image_hwc))
            for image_id, image_hwc, look in group
        ]

    def _empty(self, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probability 0 everywhere; skipped strips of one size share it, and cannot write to it."""
        shape = (self._num_classes, *image_hwc.shape[:2])
        if self._zeros_chw.shape != shape:
            self._zeros_chw = np.zeros(shape, np.float32)
            self._zeros_chw.flags.writeable = False
        return self._zeros_chw
