"""Exponential moving average (EMA) of the weights of a network.

The averaged weights are validated and kept as the best model. They are also stored in every
resumable checkpoint.
"""

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn


class WeightAverage:
    """A copy of a network whose weights are a moving average."""

    def __init__(self, model: nn.Module) -> None:
        """Copy a network; nothing is averaged yet."""
        self.model = deepcopy(model).eval().requires_grad_(False)
        self.count = 0

    @torch.no_grad()
    def update(self, model: nn.Module, *, decay: float) -> None:
        """Average in the weights of a network.

        Args:
            model: The network that is trained.
            decay: Weight of the average so far, in (0, 1). The first updates use
                (1 + n) / (10 + n) after n updates if that is lower.
        """
        keep = min(decay, (1 + self.count) / (10 + self.count))
        new = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point():
                average.lerp_(new[name], 1 - keep)
            else:
                # Counters are not averaged.
                average.copy_(new[name])
        self.count += 1

    def load(self, weights: Mapping[str, Tensor], count: int) -> None:
        """Restore an average of `count` updates."""
        self.model.load_state_dict(dict(weights))
        self.count = count
