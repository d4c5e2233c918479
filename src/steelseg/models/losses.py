"""Losses for multi-label masks of which many are empty.

All losses take `logits_nchw` before the sigmoid, `masks_nchw` float 0/1 of the same shape, and
`valid_nchw` bool of shape (N, 1, H, W), False on padding, or None. Ratios of sums (Dice, Tversky,
Jaccard, Lovasz) are computed per class over the whole batch, then averaged over the classes, so
that an empty mask also has a gradient; only `image_dice` is computed per image.
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


def build_loss(text: str, *, pos_weight: Sequence[float]) -> Loss:
    """Build a loss.

    Args:
        text: `train.loss`, as `parse_loss` reads it.
        pos_weight: Weight of a defect pixel of each class, for bce_pos_weight.

    Returns:
        Function of (logits_nchw, masks_nchw, valid_nchw) that returns a scalar, float32.

    Raises:
        ConfigError: if a term is unknown, or its weight or parameter is out of range.
    """
    try:
        terms = parse_loss(text)
    except ValueError as error:
        raise ConfigError(f"train.loss={text}: {error}.") from None
    settings = {"pos_weight": tuple(pos_weight)}
    parts: list[tuple[Loss, float]] = []
    for term in terms:
        entry = LOSS_TERMS[term.name]
        arguments: dict[str, Any] = {name: settings[name] for name in entry.settings}
        function = import_component(entry.function)
        parts.append((partial(function, **arguments, **dict(term.options)), term.weight))

    def loss(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None) -> Tensor:
        total = logits_nchw.new_zeros((), dtype=torch.float32)
        # Sums over the pixels of a strip overflow in half precision.
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
    """Return the mean binary cross-entropy over valid pixels, defect pixels weighted by class."""
    weight = None
    if pos_weight is not None:
        weight = torch.tensor(pos_weight, device=logits_nchw.device).view(1, -1, 1, 1)
    per_pixel = F.binary_cross_entropy_with_logits(
        logits_nchw, masks_nchw, pos_weight=weight, reduction="none"
    )
    return _mean(per_pixel, valid_nchw)


def _mean(per_pixel_nchw: Tensor, valid_nchw: Tensor | None) -> Tensor:
    """Return the mean over valid pixels."""
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
    """Return the focal loss: cross-entropy times (1 - p) ** gamma, averaged over valid pixels.

    p is the probability of the true label (Lin et al., 2017, arXiv:1708.02002, without alpha).
    """
    per_pixel = F.binary_cross_entropy_with_logits(logits_nchw, masks_nchw, reduction="none")
    # 1 - p from the logits does not round to 0 while the cross-entropy is above 0.
    wrong = torch.sigmoid(logits_nchw * (1 - 2 * masks_nchw))
    return _mean(wrong**gamma * per_pixel, valid_nchw)


def presence_loss(logits_nc: Tensor, masks_nchw: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of which classes the masks show, shape (N, C)."""
    present_nc = masks_nchw.flatten(2).any(dim=2)
    return F.binary_cross_entropy_with_logits(logits_nc.float(), present_nc.float())


def classifier_loss(weight: float) -> Loss:
    """Build the loss of a classifier: its presence loss, whose logit every pixel repeats.

    Args:
        weight: Factor of the loss, `train.presence_weight`.
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
    """Return the mean over classes of 1 - (2 I + smooth) / (P + T + smooth).

    I, P and T are the sums of intersection, probabilities and true mask over the pixels of one
    class in the whole batch. If the true mask is empty, the loss is 1 - smooth / (P + smooth), so
    false positives have a gradient, which a Dice that skips empty masks does not give.
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
    """Return the mean of 1 - Dice over the pairs of image and class with a defect; 0 without any.

    Small defects count as much as large ones, as in the competition's mean Dice. Empty masks do
    not count, so combine it with a term in which they do, such as bce.
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
    """Return the mean over classes of 1 - (TP + s) / (TP + alpha FP + (1 - alpha) FN + s).

    s is `smooth`. TP, FP and FN are sums of probabilities over the pixels of a class in the whole
    batch; alpha below 0.5 favours recall (Salehi et al., 2017, arXiv:1706.05721).
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
    """Return the mean over classes of the Tversky loss to a power below 1.

    The power increases the gradient where the loss is small (Abraham and Khan, 2018,
    arXiv:1810.07842, with power = 1 / gamma).
    """
    per_class = _tversky_c(logits_nchw, masks_nchw, valid_nchw, alpha, 1 - alpha, 1.0)
    # The gradient of the power is infinite at 0.
    return per_class.clamp_min(1e-6).pow(power).mean()


def jaccard(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None = None) -> Tensor:
    """Return the mean over classes of 1 - (intersection + 1) / (union + 1)."""
    return _tversky_c(logits_nchw, masks_nchw, valid_nchw, 1.0, 1.0, 1.0).mean()


def _tversky_c(
    logits_nchw: Tensor,
    masks_nchw: Tensor,
    valid_nchw: Tensor | None,
    alpha: float,
    beta: float,
    smooth: float,
) -> Tensor:
    """Return the Tversky loss per class; alpha weights false positives, beta false negatives."""
    probs = logits_nchw.sigmoid()
    if valid_nchw is not None:
        probs, masks_nchw = probs * valid_nchw, masks_nchw * valid_nchw
    hits = (probs * masks_nchw).sum(dim=(0, 2, 3))
    false = (probs * (1 - masks_nchw)).sum(dim=(0, 2, 3))
    missed = masks_nchw.sum(dim=(0, 2, 3)) - hits
    return 1 - (hits + smooth) / (hits + alpha * false + beta * missed + smooth)


def lovasz(logits_nchw: Tensor, masks_nchw: Tensor, valid_nchw: Tensor | None = None) -> Tensor:
    """Return the mean over classes of the Lovasz hinge, the convex closure of the Jaccard loss.

    If the true mask is empty, it is the hinge of the most confident false positive, because one
    such pixel already makes the Jaccard index 0 (Berman et al., 2018, arXiv:1705.08790).
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
    """Return the mean of the Lovasz hinge of defects and of the background."""
    of_defects = lovasz(logits_nchw, masks_nchw, valid_nchw)
    return (of_defects + lovasz(-logits_nchw, 1 - masks_nchw, valid_nchw)) / 2


def _lovasz_hinge(logits: Tensor, truth: Tensor) -> Tensor:
    """Return the Lovasz hinge of one class, from flat tensors of its pixels."""
    errors = 1 - logits * (2 * truth - 1)
    positives = truth.sum()
    # Pixels beyond the margin have zero weight. Leaving most pixels out makes sorting cheap.
    is_near = errors > 0
    errors, order = errors[is_near].sort(descending=True)
    truth = truth[is_near][order]
    missed, false = truth.cumsum(0), (1 - truth).cumsum(0)
    jaccard_loss = 1 - (positives - missed) / (positives + false)
    steps = jaccard_loss.diff(prepend=jaccard_loss.new_zeros(1))
    return errors @ steps
