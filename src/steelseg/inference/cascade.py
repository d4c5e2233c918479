"""Two-stage prediction: a cheap screening network decides which strips can skip the full model.

Strips keep their order. A skipped strip has probability 0 everywhere. The stages work in a
pipeline: while the caller uses one group of strips, the full model predicts the next one, and the
screening network the one after.
"""

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from itertools import repeat
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from steelseg.inference.ensemble import Ensemble
from steelseg.inference.forward import Batch, ForwardPlan, stack
from steelseg.inference.prefetch import prefetch
from steelseg.scoring.screening import defect_score_of

Predicted = tuple[str, NDArray[np.uint8], NDArray[np.float32]]
"""image_id, image_hwc and probs_chw."""

_Group: TypeAlias = list[tuple[str, NDArray[np.uint8], bool]]
"""image_id and image_hwc of some strips, and whether each needs the full model."""

# Most strips that wait until there are enough for a batch of the full model.
_MOST_WAITING = 32


class Cascade:
    """A screening network in front of a full model."""

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
        """Combine the two stages.

        Args:
            first: The screening network.
            second: The full model.
            first_plan: Flips, crops and precision of the screening network.
            cut: Strips with a lower defect score skip the full model.
            batch_size: Batch size of the full model.
            num_classes: Classes C of the full model.
            by_presence: Whether the screening network is a classifier.
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
        """Predict strips; those that pass the screening skip the full model.

        Args:
            batches: image_ids and images_nhwc, as `forward.batches` returns them.
            plan: Flips, crops and precision of the full model.

        Yields:
            image_id, image_hwc and probs_chw of each strip, in order.
        """
        groups = self._groups(batches)
        full = partial(self._predict_group, plan=plan)
        with (
            closing(groups),
            # Each stage has a thread of its own.
            closing(prefetch(lambda _: next(groups, None), repeat(None), threads=1)) as screened,
            closing(prefetch(full, iter(partial(next, screened), None), threads=1)) as predicted,
        ):
            for strips in predicted:
                yield from strips

    def predict_now(self, images_nhwc: NDArray[np.uint8], plan: ForwardPlan) -> NDArray[np.float32]:
        """Predict one batch in the caller's thread; return shape (N, C, H, W)."""
        firsts = self._first.predict_now_ungated(images_nhwc, self._first_plan)
        needs_full = [self._needs_full(*answer) for answer in zip(*firsts, strict=True)]
        probs_nchw = np.zeros(
            (len(images_nhwc), self._num_classes, *images_nhwc.shape[1:3]), np.float32
        )
        if any(needs_full):
            probs_nchw[needs_full] = self._second.predict_now(images_nhwc[needs_full], plan)
        return probs_nchw

    def _needs_full(self, probs_chw: NDArray[np.float32], presence_c: NDArray[np.float32]) -> bool:
        """Whether a strip needs the full model."""
        return defect_score_of(probs_chw, presence_c, by_presence=self._by_presence) >= self._cut

    def _groups(self, batches: Iterable[Batch]) -> Generator[_Group]:
        """Screen strips, and group them so that each group fills a batch of the full model."""
        waiting: _Group = []
        with closing(self._first.predict_ungated(batches, self._first_plan)) as screened:
            for image_id, image_hwc, *answer in screened:
                waiting.append((image_id, image_hwc, self._needs_full(*answer)))
                if sum(w[2] for w in waiting) == self._batch_size or len(waiting) == _MOST_WAITING:
                    yield waiting
                    waiting = []
        yield waiting

    def _predict_group(self, group: _Group, plan: ForwardPlan) -> list[Predicted]:
        """Predict those strips of a group that need the full model."""
        chosen = ((image_id, image_hwc) for image_id, image_hwc, needs_full in group if needs_full)
        predicted = self._second.predict(stack(chosen, batch_size=self._batch_size), plan)
        return [
            next(predicted) if needs_full else (image_id, image_hwc, self._empty(image_hwc))
            for image_id, image_hwc, needs_full in group
        ]

    def _empty(self, image_hwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return probability 0 everywhere, as a read-only array that skipped strips share."""
        shape = (self._num_classes, *image_hwc.shape[:2])
        if self._zeros_chw.shape != shape:
            self._zeros_chw = np.zeros(shape, np.float32)
            self._zeros_chw.flags.writeable = False
        return self._zeros_chw
