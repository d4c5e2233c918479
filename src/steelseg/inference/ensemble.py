"""Several networks as one: the mean of their probabilities.

Together, every network is in memory; sequentially, one at a time, loaded anew for every few
batches. Both add up in the same order and give the same bits.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from steelseg.inference.ahead import one_ahead
from steelseg.inference.forward import Batch, ForwardPlan, Network, predict_batch
from steelseg.inference.members import Member, refuse_strangers
from steelseg.models.allocator import keep_freed_memory

# Loading a network costs about as much as predicting a few strips; more would cost memory.
_SEQUENTIAL_BATCHES = 4


class Ensemble:
    """The mean of one or more networks."""

    def __init__(
        self, members: Sequence[Member], *, sequential: bool, device: torch.device
    ) -> None:
        """Load every network; if `sequential`, one after the other to see that each can be.

        Args:
            members: The networks; they may differ in architecture and encoder.
            sequential: Hold one network at a time.
            device: Where to predict.

        Raises:
            CheckpointError: if one cannot be used, or they were trained for different classes.
        """
        refuse_strangers(members)
        self._members = tuple(members)
        self._device = device
        if device.type == "cpu":
            keep_freed_memory()
        self._held: list[Network] = []
        for member in members:
            network = member.load(device)
            if not sequential:
                self._held.append(network)
        self._chunk = _SEQUENTIAL_BATCHES if sequential else 1

    def _networks(self) -> Iterable[Network]:
        """The networks, held or loaded one by one."""
        return self._held or (member.load(self._device) for member in self._members)

    def predict(
        self, batches: Iterable[Batch], plan: ForwardPlan
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
        """Predict batch after batch.

        Args:
            batches: image_ids and images_nhwc, as `forward.batches` gives them.
            plan: Flips, crops and precision.

        Yields:
            image_id, image_hwc and probs_chw of each image, in order; the next batch is computed
            meanwhile.
        """
        with closing(one_ahead(self._predict_chunks(batches, plan))) as predicted:
            for chunk, probs in predicted:
                for (image_ids, images_nhwc), probs_nchw in zip(chunk, probs, strict=True):
                    yield from zip(image_ids, images_nhwc, probs_nchw, strict=True)

    def predict_now(self, images_nhwc: NDArray[np.uint8], plan: ForwardPlan) -> NDArray[np.float32]:
        """Probabilities of one batch, shape (N, C, H, W), computed in the caller's thread."""
        (probs_nchw,) = self._mean([((), images_nhwc)], plan)
        return np.asarray(probs_nchw.cpu())

    def _predict_chunks(
        self, batches: Iterable[Batch], plan: ForwardPlan
    ) -> Iterator[tuple[list[Batch], list[NDArray[np.float32]]]]:
        """Predict a few batches at a time."""
        source = iter(batches)
        while chunk := list(islice(source, self._chunk)):
            yield chunk, [probs_nchw.cpu().numpy() for probs_nchw in self._mean(chunk, plan)]

    def _mean(self, chunk: Sequence[Batch], plan: ForwardPlan) -> list[Tensor]:
        """Mean probabilities of each batch over all networks."""
        totals: list[Tensor] = []
        for network in self._networks():
            probs = [predict_batch(network, images, plan, self._device) for _, images in chunk]
            totals = [a + b for a, b in zip(totals, probs, strict=True)] if totals else probs
        return [total / len(self._members) for total in totals]
