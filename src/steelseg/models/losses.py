"""The baseline's five losses, for multi-label masks with many empty ones.

Arguments everywhere: `logits_nchw` before the sigmoid, `masks_nchw` float 0/1 of the same
shape, `valid_nchw` bool of shape (N, 1, H, W) that is False on padding, or None.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from steelseg.errors import ConfigError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]

# Weights of BCE and Dice; the third says whether BCE weighs the classes.
_MIXTURES: dict[str, tuple[float, float, bool]] = {
    "bce_with_logits": (1.0, 0.0, False),
    "dice": (0.0, 1.0, False),
    "combo": (0.5, 0.5, False),
    "bce_pos_weight": (1.0, 0.0, True),
    "bce_dice_pos_weight": (0.75, 0.25, True),
}


def build_loss(name: str, *, pos_weight: Sequence[float]) -> Loss:
    """Make a loss by its name.

    Args:
        name: bce_with_logits, dice, combo, bce_pos_weight or bce_dice_pos_weight.
        pos_weight: Weight of a defect pixel of each class; read by the two weighted losses.

    Returns:
        Function of (logits_nchw, masks_nchw, valid_nchw) giving a scalar, float32.

    Raises:
        ConfigError: if there is no such loss.
    """
    if name not in _MIXTURES:
        raise ConfigError(f"train.loss={name}: expected one of {', '.join(_MIXTURES)}.")
    bce_share, dice_share, weighted = _MIXTURES[name]
    weights = tuple(pos_weight) if weighted else None

    def loss(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None) -> Tensor:
        total = logits_nchw.new_zeros((), dtype=torch.float32)
        # Half precision cannot add up a strip's pixels.
        logits_nchw, masks_nchw = logits_nchw.float(), masks_nchw.float()
        if bce_share:
            total = total + bce_share * bce(logits_nchw, masks_nchw, valid_nchw, pos_weight=weights)
        if dice_share:
            total = total + dice_share * dice_loss(logits_nchw, masks_nchw, valid_nchw)
        return total

    return loss


def bce(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None = None,
    *,
    pos_weight: Sequence[float] | None = None,
) -> Tensor:
    """Mean binary cross-entropy over valid pixels, defect pixels weighted by class."""
    weight = None
    if pos_weight is not None:
        weight = torch.tensor(pos_weight, device=logits_nchw.device).view(1, -1, 1, 1)
    per_pixel = F.binary_cross_entropy_with_logits(
        logits_nchw, masks_nchw, pos_weight=weight, reduction="none"
    )
    if valid_nchw is None:
        return per_pixel.mean()
    classes = logits_nchw.shape[1]
    return (per_pixel * valid_nchw).sum() / (valid_nchw.sum() * classes)


def presence_loss(logits_nc: Tensor, masks_nchw: Tensor) -> Tensor:
    """Mean binary cross-entropy of which classes the masks show at all."""
    shown_nc = masks_nchw.flatten(2).any(dim=2)
    return F.binary_cross_entropy_with_logits(logits_nc.float(), shown_nc.float())


def dice_loss(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None = None,
    *,
    smooth: float = 1.0,
) -> Tensor:
    """Mean over classes of 1 - (2 I + smooth) / (P + T + smooth).

    I, P and T are summed over the pixels of one class in the whole batch, so that a small
    defect weighs as much as a large one only beside those of its own class. On an empty
    truth this is 1 - smooth / (P + smooth): false alarms have a gradient, which a Dice that
    skips empty truths does not give.
    """
    probs = logits_nchw.sigmoid()
    if valid_nchw is not None:
        probs, masks_nchw = probs * valid_nchw, masks_nchw * valid_nchw
    intersection = (probs * masks_nchw).sum(dim=(0, 2, 3))
    total = probs.sum(dim=(0, 2, 3)) + masks_nchw.sum(dim=(0, 2, 3))
    return (1 - (2 * intersection + smooth) / (total + smooth)).mean()
