"""The mean of several networks: their probabilities are averaged, then the gate is applied.

Members of a combined run have their own weights, flips and crops.

Networks are all kept in memory, or loaded one at a time for every few batches. Both ways add up in
the same order and give the same bits.
"""

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from operator import add
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.inference.forward import Answer, Batch, ForwardPlan, Network, predict_batch
from steelseg.inference.members import Member, check_members_compatible
from steelseg.inference.prefetch import prefetch
from steelseg.models.libc import keep_freed_memory
from steelseg.scoring.gate import Gate, open_gate

# Batches per load. Loading costs about as much as predicting a few strips; more batches would need
# more memory.
_SEQUENTIAL_BATCHES = 4


_Open: TypeAlias = tuple[str, NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]
"""image_id, image_hwc, probs_chw before the gate, and presence_c."""


class Ensemble:
    """The mean of one or more networks."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        sequential: bool,
        device: torch.device,
        gate: Gate = open_gate,
    ) -> None:
        """Load every network; if `sequential`, load and release each once, as a check.

        Args:
            members: The networks; they may differ in architecture and encoder.
            sequential: Keep only one network in memory at a time.
            device: Where to predict.
            gate: Applied to the mean probabilities and the mean presence.

        Raises:
            CheckpointError: if one cannot be used, or they were trained for different classes.
        """
        check_members_compatible(members, with_presence=members[0].weight is None)
        self._members = tuple(members)
        self._device = device
        self._gate = gate
        if device.type == "cpu":
            keep_freed_memory()
        self._held: list[Network] = []
        for member in members:
            network = member.load(device)
            if not sequential:
                self._held.append(network)
        self._chunk = _SEQUENTIAL_BATCHES if sequential else 1
        # Exported networks would idle during the slowest strip and the sigmoid of a single batch.
        shared = not sequential and all(member.side_by_side for member in members)
        self._ahead = 2 if shared else 1

    def _networks(self) -> Iterable[Network]:
        """Return the networks, from memory or loaded one by one."""
        return self._held or (member.load(self._device) for member in self._members)

    def predict(
        self, batches: Iterable[Batch], plan: ForwardPlan
    ) -> Iterator[tuple[str, NDArray[np.uint8], NDArray[np.float32]]]:
        """Predict batches.

        Args:
            batches: image_ids and images_nhwc, as `forward.batches` returns them.
            plan: Flips, crops and precision of members without a weight.

        Yields:
            image_id, image_hwc and gated probs_chw of each image, in order; the next batches are
            computed meanwhile.
        """
        with closing(self.predict_ungated(batches, plan)) as predicted:
            for image_id, image_hwc, probs_chw, presence_c in predicted:
                yield image_id, image_hwc, self._gate(probs_chw, presence_c)

    def predict_ungated(
        self, batches: Iterable[Batch], plan: ForwardPlan
    ) -> Generator[_Open, None, None]:
        """Like `predict`, but before the gate; also yield presence_c."""
        source = iter(batches)
        chunks = iter(lambda: list(islice(source, self._chunk)), [])
        answered = prefetch(partial(self._answer, plan=plan), chunks, threads=self._ahead)
        with closing(answered) as predicted:
            for chunk, answers in predicted:
                for batch, answer in zip(chunk, answers, strict=True):
                    yield from zip(*batch, *answer, strict=True)

    def predict_now(self, images_nhwc: NDArray[np.uint8], plan: ForwardPlan) -> NDArray[np.float32]:
        """Predict one batch in the caller's thread; return shape (N, C, H, W)."""
        pairs = zip(*self.predict_now_ungated(images_nhwc, plan), strict=True)
        return np.stack([self._gate(probs_chw, presence_c) for probs_chw, presence_c in pairs])

    def predict_now_ungated(
        self, images_nhwc: NDArray[np.uint8], plan: ForwardPlan
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Like `predict_now`, but before the gate; also return presence_nc."""
        (answer,) = self._mean([((), images_nhwc)], plan)
        return answer.probs_nchw.cpu().numpy(), answer.presence_nc.cpu().numpy()

    def _answer(
        self, chunk: list[Batch], plan: ForwardPlan
    ) -> tuple[list[Batch], list[list[NDArray[np.float32]]]]:
        """Predict a few batches."""
        answers = self._mean(chunk, plan)
        return chunk, [[part.cpu().numpy() for part in answer] for answer in answers]

    def _mean(self, chunk: Sequence[Batch], plan: ForwardPlan) -> list[Answer]:
        """Return the mean of all networks for each batch."""
        totals: list[Answer] = []
        for member, network in zip(self._members, self._networks(), strict=True):
            answers = [self._ask(member, network, images, plan) for _, images in chunk]
            pairs = zip(totals, answers, strict=True)
            totals = [Answer(*map(add, *pair)) for pair in pairs] if totals else answers
        if len(self._members) == 1:
            return totals
        return [Answer(*(part / len(self._members) for part in total)) for total in totals]

    def _ask(
        self, member: Member, network: Network, images_nhwc: NDArray[np.uint8], plan: ForwardPlan
    ) -> Answer:
        """Predict one batch with one network, multiplied by its weight if it has one."""
        if member.weight is None:
            return predict_batch(network, images_nhwc, plan, self._device)
        answer = predict_batch(network, images_nhwc, member.weight.plan, self._device)
        return member.weight.apply(answer)
