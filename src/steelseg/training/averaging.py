"""Means of weights over a training, which predict better than any one epoch's.

`Average` holds a copy of the network whose weights are the mean; that copy is what is validated
and kept as best model. Its state travels with every resumable checkpoint.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from steelseg.models.device import autocast


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

    def settle(
        self,
        images: Iterable[Tensor],
        *,
        device: torch.device,
        half: torch.dtype | None,
        frozen: nn.Module | None = None,
    ) -> None:
        """Count the statistics of batch normalisation on training images: `update_batch_norm`."""
        update_batch_norm(self.model, images, device=device, half=half, frozen=frozen)


def update_batch_norm(
    model: nn.Module,
    images: Iterable[Tensor],
    *,
    device: torch.device,
    half: torch.dtype | None,
    frozen: nn.Module | None = None,
) -> None:
    """Count the statistics of batch normalisation anew: those of a mean are not the mean of them.

    Args:
        model: The network, in eval mode before and after.
        images: Batches of training images.
        device: Where the network is.
        half: Half precision of the training.
        frozen: A part of the network that keeps its own.
    """
    kept = set(frozen.modules()) if frozen is not None else set()
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m not in kept]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        # None is a plain mean over the batches.
        norm.momentum = None
        norm.train()
    with torch.no_grad(), autocast(device, half):
        for images_nchw in images:
            model(images_nchw.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


def greedy_soup(
    ingredients: Sequence[Callable[[], Mapping[str, Tensor]]],
    judge: Callable[[Mapping[str, Tensor]], tuple[float, dict[str, float]]],
) -> tuple[dict[str, Tensor], list[int], dict[str, float]]:
    """Average networks as long as the mean gets no worse.

    Args:
        ingredients: Each reads the weights of one, the best first.
        judge: By what weights are chosen, and what to report of them.

    Returns:
        The mean, the places of what went in, and its report.
    """
    soup: dict[str, Tensor] = {}
    chosen: list[int] = []
    best, report = float("-inf"), dict[str, float]()
    for place, read in enumerate(ingredients):
        trial = _mean_with(soup, read(), len(chosen))
        value, told = judge(trial)
        if value >= best:
            soup, best, report = trial, value, told
            chosen.append(place)
    return soup, chosen, report


def _mean_with(
    soup: Mapping[str, Tensor], weights: Mapping[str, Tensor], count: int
) -> dict[str, Tensor]:
    """The mean of `count` networks and one more."""
    if not count:
        return dict(weights)
    return {
        name: own + (weights[name] - own) / (count + 1) if own.is_floating_point() else own
        for name, own in soup.items()
    }
