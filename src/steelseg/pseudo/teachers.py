"""The networks of one fold that label strips: what each says of each view, and their mean.

A vote is one view of a strip by one network, turned back. Every network is held in memory and asked
as its own run predicts (crops, precision); flips are the views. Strips are asked about one by one,
so that the answer to a strip hangs on no other.
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
    """What one network says of one view, or the mean of several votes; before any gate."""

    probs_chw: NDArray[np.float32]
    """Of each pixel of the strip as it lies."""

    presence_c: NDArray[np.float32]
    """Of each class on the whole strip; empty of a network without a presence head."""


class Teachers:
    """Networks that are asked together."""

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
            plans: How each predicts; without flips.
            device: Where to predict.

        Raises:
            CheckpointError: if one cannot be used, or they were trained for different classes.
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

    def ask(self, image_hwc: NDArray[np.uint8]) -> list[Vote]:
        """Ask every network about every view of a strip, shape (H, W, channels)."""
        views = [("", np.flip(image_hwc, flip)) for flip in self._flips]
        votes: list[Vote] = []
        for network, plan in self._networks:
            turned = iter(self._flips)
            for _, images_nhwc in stack(views, batch_size=self._at_once):
                answer = predict_batch(network, images_nhwc, plan, self._device)
                for probs_chw, presence_c in zip(*(p.cpu().numpy() for p in answer), strict=True):
                    flip = tuple(axis + 1 for axis in next(turned))
                    votes.append(Vote(np.flip(probs_chw, flip), presence_c))
        return votes


def mean_vote(votes: Sequence[Vote]) -> Vote:
    """The mean of votes, as an ensemble with flips gives it."""
    count = np.float32(len(votes))
    return Vote(
        np.sum([vote.probs_chw for vote in votes], axis=0) / count,
        np.sum([vote.presence_c for vote in votes], axis=0) / count,
    )
