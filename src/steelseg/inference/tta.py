"""Test-time augmentation: the mean over a strip and its flips."""

from collections.abc import Callable

import torch
from torch import Tensor

# Axes to flip of an NCHW tensor, for each view.
VIEWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "hflip": ((), (3,)),
    "vflip": ((), (2,)),
    "both": ((), (3,), (2,), (2, 3)),
}


def average_views(predict: Callable[[Tensor], Tensor], images_nchw: Tensor, *, tta: str) -> Tensor:
    """Predict every view, turn it back and take the mean.

    Args:
        predict: From images to probabilities, same height and width.
        images_nchw: Pixels, shape (N, channels, H, W).
        tta: A key of `VIEWS`.

    Returns:
        Probabilities, shape (N, C, H, W).
    """
    views = VIEWS[tta]
    total = predict(images_nchw)
    if len(views) == 1:
        # As it is: what is spread from one cell would take memory from here on.
        return total
    for axes in views[1:]:
        total = total + torch.flip(predict(torch.flip(images_nchw, axes)), axes)
    return total / len(views)
