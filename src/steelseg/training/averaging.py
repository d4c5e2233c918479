"""Means of weights over a training, which predict better than any one epoch's.

`Average` holds a copy of the network whose weights are the mean; that copy is what is validated
and kept as best model. Its state travels with every resumable checkpoint.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn


class Average:
    """A running mean of a network's weights, as a network."""

    def __init__(self, model: nn.Module) -> None:
        """Copy a network; nothing is averaged yet."""
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.count = 0

    def follow(self, model: nn.Module, *, decay: float) -> None:
        """Move towards a network by a share that falls to 1 - decay as more have gone in."""
        self._mix(model, keep=min(decay, (1 + self.count) / (10 + self.count)))

    def add(self, model: nn.Module) -> None:
        """Take a network into a plain mean."""
        self._mix(model, keep=self.count / (self.count + 1))

    @torch.no_grad()
    def _mix(self, model: nn.Module, *, keep: float) -> None:
        new = model.state_dict()
        for name, own in self.model.state_dict().items():
            if own.is_floating_point() and keep:
                own.lerp_(new[name], 1 - keep)
            else:
                # Counters have no mean, and a first network is taken to the bit.
                own.copy_(new[name])
        self.count += 1

    def load(self, weights: Mapping[str, Tensor], count: int) -> None:
        """Go on from where a mean of `count` networks was."""
        self.model.load_state_dict(dict(weights))
        self.count = count
