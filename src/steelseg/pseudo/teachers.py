"""The networks of one fold that label strips: their votes, and the mean of the votes.

A vote is the prediction of one network for one TTA flip of a strip, flipped back. All networks stay
in memory; each predicts as its own run does (crops, precision). Strips are predicted one by one, so
the result of a strip does not depend on the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from steelseg.inference.forward import FLIP_AXES, ForwardPlan, images_at_once, predict_batch, stack
from steelseg.inference.members import Member, check_members_compatible
from steelseg.models.libc import keep_freed_memory


@dataclass(frozen=True)
class Vote:
    """Prediction of one network for one flip, or the mean of several votes; before any gate."""

    probs_chw: NDArray[np.float32]
    """Probabilities in the orientation of the strip, shape (C, H, W)."""

    presence_c: NDArray[np.float32]
    """Presence of each class, shape (C,); empty without a presence head."""


class Teachers:
    """Networks that vote together."""

    def __init__(
        self,
        members: Sequence[Member],
        plans: Sequence[ForwardPlan],
        *,
        device: torch.device,
    ) -> None:
        """Load the networks.

        Args:
            members: The networks; they may differ in architecture and encoder.
            plans: How each predicts, without flips.
            device: Where to predict.

        Raises:
            CheckpointError: if a network cannot be used, or their classes differ.
        """
        check_members_compatible(members, with_presence=True)
        assert all(plan.tta == "none" for plan in plans), plans
        if device.type == "cpu":
            keep_freed_memory()
        networks = [member.load(device) for member in members]
        self._networks = list(zip(networks, plans, strict=True))
        # Axes of NCHW; a strip is HWC, its probabilities CHW.
        self._flips = [tuple(axis - 2 for axis in axes) for axes in FLIP_AXES["both"]]
        self._device = device
        self._at_once = images_at_once(len(self._flips), device)

    def predict(self, image_hwc: NDArray[np.uint8]) -> list[Vote]:
        """Predict every flip of a strip, shape (H, W, channels), with every network."""
        flipped = [("", np.flip(image_hwc, flip)) for flip in self._flips]
        votes: list[Vote] = []
        for network, plan in self._networks:
            flips = iter(self._flips)
            for _, images_nhwc in stack(flipped, batch_size=self._at_once):
                answer = predict_batch(network, images_nhwc, plan, self._device)
                for probs_chw, presence_c in zip(*(p.cpu().numpy() for p in answer), strict=True):
                    flip = tuple(axis + 1 for axis in next(flips))
                    votes.append(Vote(np.flip(probs_chw, flip), presence_c))
        return votes


def mean_vote(votes: Sequence[Vote]) -> Vote:
    """Return the mean of votes, which equals the prediction of an ensemble with TTA."""
    count = np.float32(len(votes))
    return Vote(
        np.sum([vote.probs_chw for vote in votes], axis=0) / count,
        np.sum([vote.presence_c for vote in votes], axis=0) / count,
    )
