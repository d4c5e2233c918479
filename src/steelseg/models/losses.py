"""Losses for multi-label masks with many empty ones.

Arguments everywhere: `logits_nchw` before the sigmoid, `masks_nchw` float 0/1 of the same
shape, `valid_nchw` bool of shape (N, 1, H, W) that is False on padding, or None. What is a ratio
of sums (Dice, Tversky, Jaccard, Lovasz) is taken over each class in the whole batch and then over
the classes, so that an empty truth gives a gradient where the batch has others, and alone;
`image_dice` alone takes each image by itself.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from steelseg.config.components import LOSS_TERMS, import_component
from steelseg.config.loss_terms import parse_loss
from steelseg.errors import ConfigError

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def build_loss(
    text: str,
    *,
    pos_weight: Sequence[float],
    focal_gamma: float = 2.0,
    tversky_alpha: float = 0.3,
) -> Loss:
    """Make a loss.

    Args:
        text: What `train.loss` says, as `parse_loss` reads it.
        pos_weight: Weight of a defect pixel of each class; read by bce_pos_weight.
        focal_gamma: Power by which focal turns away from what is sure.
        tversky_alpha: Weight of false pixels; missed ones have the rest of 1.

    Returns:
        Function of (logits_nchw, masks_nchw, valid_nchw) giving a scalar, float32.

    Raises:
        ConfigError: if there is no such loss.
    """
    try:
        terms = parse_loss(text)
    except ValueError as error:
        raise ConfigError(f"train.loss={text}: {error}.") from None
    arguments: dict[str, dict[str, Any]] = {
        "bce_pos_weight": {"pos_weight": tuple(pos_weight)},
        "focal": {"gamma": focal_gamma},
        "tversky": {"alpha": tversky_alpha},
        "focal_tversky": {"alpha": tversky_alpha},
    }
    parts: list[tuple[Loss, float]] = [
        (partial(import_component(LOSS_TERMS[term]), **arguments.get(term, {})), weight)
        for term, weight in terms
    ]

    def loss(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None) -> Tensor:
        total = logits_nchw.new_zeros((), dtype=torch.float32)
        # Half precision cannot add up a strip's pixels.
        logits_nchw, masks_nchw = logits_nchw.float(), masks_nchw.float()
        for term, weight in parts:
            total = total + weight * term(logits_nchw, masks_nchw, valid_nchw)
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
    return _mean(per_pixel, valid_nchw)


def _mean(per_pixel_nchw: Tensor, valid_nchw: Tensor | None) -> Tensor:
    """Mean over valid pixels."""
    if valid_nchw is None:
        return per_pixel_nchw.mean()
    classes = per_pixel_nchw.shape[1]
    return (per_pixel_nchw * valid_nchw).sum() / (valid_nchw.sum() * classes)


def focal(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None = None,
    *,
    gamma: float = 2.0,
) -> Tensor:
    """Mean over valid pixels of cross-entropy times (probability of what is false) ** gamma."""
    per_pixel = F.binary_cross_entropy_with_logits(logits_nchw, masks_nchw, reduction="none")
    # Of the logits, where it does not round to 0 while the cross-entropy is not.
    false = torch.sigmoid(logits_nchw * (1 - 2 * masks_nchw))
    return _mean(false**gamma * per_pixel, valid_nchw)


def presence_loss(logits_nc: Tensor, masks_nchw: Tensor) -> Tensor:
    """Mean binary cross-entropy of which classes the masks show at all."""
    shown_nc = masks_nchw.flatten(2).any(dim=2)
    return F.binary_cross_entropy_with_logits(logits_nc.float(), shown_nc.float())


def classifier_loss(weight: float) -> Loss:
    """Make the loss of a classifier: that of presence, whose logit every pixel has.

    Args:
        weight: Factor of it, `train.presence_weight`.
    """

    def loss(logits_nchw: Tensor, masks_nchw: Tensor, _valid_nchw: Tensor | None) -> Tensor:
        return weight * presence_loss(logits_nchw[:, :, 0, 0], masks_nchw)

    return loss


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


def image_dice(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None = None,
    *,
    smooth: float = 1.0,
) -> Tensor:
    """Mean of 1 - Dice over the pairs of image and class that show a defect; 0 without one.

    It weighs a small defect as much as a large one, as the competition's mean does. Empty truths
    have no part in it, so it wants a term beside it that does, such as bce.
    """
    probs = logits_nchw.sigmoid()
    if valid_nchw is not None:
        probs, masks_nchw = probs * valid_nchw, masks_nchw * valid_nchw
    truth_nc = masks_nchw.sum(dim=(2, 3))
    intersection_nc = (probs * masks_nchw).sum(dim=(2, 3))
    dice_nc = (2 * intersection_nc + smooth) / (probs.sum(dim=(2, 3)) + truth_nc + smooth)
    is_shown_nc = truth_nc > 0
    return ((1 - dice_nc) * is_shown_nc).sum() / is_shown_nc.sum().clamp_min(1)


def tversky(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None = None,
    *,
    alpha: float = 0.3,
    smooth: float = 1.0,
) -> Tensor:
    """Mean over classes of 1 - (I + smooth) / (I + alpha F + (1 - alpha) M + smooth).

    I, F and M are what is right, false and missed; alpha below 0.5 asks for recall.
    """
    return _tversky_c(logits_nchw, masks_nchw, valid_nchw, alpha, 1 - alpha, smooth).mean()


def focal_tversky(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None = None,
    *,
    alpha: float = 0.3,
    power: float = 0.75,
) -> Tensor:
    """Mean over classes of the Tversky loss to a power below 1: steep where little is left."""
    per_class = _tversky_c(logits_nchw, masks_nchw, valid_nchw, alpha, 1 - alpha, 1.0)
    # The power has no slope at 0.
    return per_class.clamp_min(1e-6).pow(power).mean()


def jaccard(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None = None) -> Tensor:
    """Mean over classes of 1 - (I + 1) / (union + 1)."""
    return _tversky_c(logits_nchw, masks_nchw, valid_nchw, 1.0, 1.0, 1.0).mean()


def _tversky_c(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None,
    alpha: float,
    beta: float,
    smooth: float,
) -> Tensor:
    """The Tversky loss of each class, with weights of false and of missed pixels."""
    probs = logits_nchw.sigmoid()
    if valid_nchw is not None:
        probs, masks_nchw = probs * valid_nchw, masks_nchw * valid_nchw
    hits = (probs * masks_nchw).sum(dim=(0, 2, 3))
    false = (probs * (1 - masks_nchw)).sum(dim=(0, 2, 3))
    missed = masks_nchw.sum(dim=(0, 2, 3)) - hits
    return 1 - (hits + smooth) / (hits + alpha * false + beta * missed + smooth)


def lovasz(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None = None) -> Tensor:
    """Mean over classes of the Lovasz hinge: the convex closure of the Jaccard loss.

    On an empty truth it is the hinge of the surest false pixel, because one such pixel is all
    that the Jaccard index needs to fall to 0.
    """
    classes = logits_nchw.shape[1]
    is_valid = torch.ones_like(masks_nchw, dtype=torch.bool)
    if valid_nchw is not None:
        is_valid = is_valid & valid_nchw
    by_class = (tensor.transpose(0, 1).reshape(classes, -1) for tensor in (logits_nchw, masks_nchw))
    parts = zip(*by_class, is_valid.transpose(0, 1).reshape(classes, -1), strict=True)
    return torch.stack([_lovasz_hinge(x[v], t[v]) for x, t, v in parts]).mean()


def symmetric_lovasz(
    logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None = None
) -> Tensor:
    """Mean of the Lovasz hinge of defects and of that of the background."""
    of_defects = lovasz(logits_nchw, masks_nchw, valid_nchw)
    return (of_defects + lovasz(-logits_nchw, 1 - masks_nchw, valid_nchw)) / 2


def _lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """The Lovasz hinge of one class, of its pixels in a row."""
    errors = 1 - logits * (2 * truth - 1)
    positives = truth.sum()
    # Pixels beyond the margin weigh nothing and come last; most are, and sorting is what costs.
    is_near = errors > 0
    errors, order = errors[is_near].sort(descending=True)
    truth = truth[is_near][order]
    missed, false = truth.cumsum(0), (1 - truth).cumsum(0)
    jaccard_loss = 1 - (positives - missed) / (positives + false)
    steps = jaccard_loss.diff(prepend=jaccard_loss.new_zeros(1))
    return errors @ steps
