"""Whether the predictions for a strip can be used as its labels.

There are two tests for each class. *Agreement*: the mask of every vote (a TTA flip of the strip by
one network) is compared with the mask of their mean, by the competition's Dice. *Confidence* of the
mean: the mean probability inside the mask, or for a class without a mask 1 minus its defect score,
so that an absent class is confident if no block is likely. `ConfidenceThresholds` are given, or
chosen on labelled strips to reach a precision.

Axes: v votes, n strips, c classes, h height, w width. No files, no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.metrics import count_pixels, dice
from steelseg.scoring.screening import defect_scores


@dataclass(frozen=True)
class ConfidenceThresholds:
    """Minimum confidence at which a prediction is accepted; infinity accepts none."""

    found: tuple[float, ...]
    """Minimum mean probability inside a mask, one value per class."""

    absent: tuple[float, ...]
    """Minimum of 1 - defect score for a class without a mask, one value per class."""

    def required(self, is_found_c: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the threshold of each class, shape (C,); `is_found_c`: which have a mask."""
        return np.where(is_found_c, self.found, self.absent)


def agreement(
    masks_vchw: Sequence[NDArray[np.bool_]], mean_chw: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the lowest Dice of a vote with the mean, for each class.

    Args:
        masks_vchw: Masks of each vote, each of shape (C, H, W).
        mean_chw: Masks of the mean of their probabilities.

    Returns:
        In [0, 1], shape (C,); 1 if all votes and the mean are empty.
    """
    dices_vc = [dice(count_pixels(mask_chw, mean_chw)) for mask_chw in masks_vchw]
    lowest: NDArray[np.float64] = np.min(dices_vc, axis=0)
    return lowest


def confidence(probs_chw: NDArray[np.uint8], mask_chw: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the confidence of each class.

    Args:
        probs_chw: Probabilities times 255, as `to_uint8` rounds them.
        mask_chw: The masks made from them.

    Returns:
        In [0, 1], shape (C,): the mean probability inside the mask, or 1 minus the defect score of
        a class without a mask.
    """
    absent = 1 - np.array(defect_scores(probs_chw))
    pairs = zip(probs_chw, mask_chw, absent, strict=True)
    return np.array([float(p[m].mean()) / 255 if m.any() else float(a) for p, m, a in pairs])


def choose_thresholds(
    confidence_nc: NDArray[np.float64], counts_nc3: NDArray[np.int64], *, precision: float
) -> ConfidenceThresholds:
    """Choose the lowest thresholds at which accepted predictions reach a precision.

    Args:
        confidence_nc: Result of `confidence` on labelled strips.
        counts_nc3: Result of `count_pixels` for their masks and ground truth.
        precision: Minimum precision, by pixels for masks and by strips for absent classes.

    Returns:
        The thresholds; infinity if none reaches the precision.
    """
    found, absent = [], []
    for confidence_n, counts_n3 in zip(confidence_nc.T, counts_nc3.transpose(1, 0, 2), strict=True):
        hit_n, predicted_n, truth_n = counts_n3.T
        is_found_n = predicted_n > 0
        masks, others = np.flatnonzero(is_found_n), np.flatnonzero(~is_found_n)
        found.append(_lowest(confidence_n[masks], hit_n[masks], predicted_n[masks], precision))
        is_right = truth_n[others] == 0
        absent.append(_lowest(confidence_n[others], is_right, np.ones(len(others)), precision))
    return ConfidenceThresholds(tuple(found), tuple(absent))


def _lowest(
    confident: NDArray[np.float64],
    right: NDArray[np.generic],
    whole: NDArray[np.generic],
    target: float,
) -> float:
    """Return the lowest threshold at which sum(right) / sum(whole) reaches the target."""
    order = np.argsort(-confident, kind="stable")
    shares = np.cumsum(right[order]) / np.cumsum(whole[order])
    values = confident[order]
    # Predictions with equal confidence are accepted together.
    is_last = np.append(values[1:] != values[:-1], True)[: len(values)]
    reaching = np.flatnonzero((shares >= target) & is_last)
    return float(values[reaching[-1]]) if len(reaching) else math.inf


@dataclass(frozen=True)
class AcceptedPredictions:
    """Predictions of one class that thresholds accept, on labelled strips."""

    masks: int
    """Predicted masks."""

    masks_trusted: int
    """Accepted masks."""

    precision: float
    """Precision of their pixels; NaN without any."""

    absences: int
    """Strips without a predicted mask of the class."""

    absences_trusted: int
    """Accepted ones."""

    absences_right: float
    """Fraction of those without the class in the ground truth; NaN without any."""


def count_accepted(
    confidence_nc: NDArray[np.float64],
    counts_nc3: NDArray[np.int64],
    thresholds: ConfidenceThresholds,
) -> list[AcceptedPredictions]:
    """Count accepted predictions of each class; arguments as in `choose_thresholds`."""
    is_found_nc = counts_nc3[..., 1] > 0
    is_accepted_nc = confidence_nc >= thresholds.required(is_found_nc)
    accepted = []
    for channel in range(confidence_nc.shape[1]):
        counts_n3, is_found = counts_nc3[:, channel], is_found_nc[:, channel]
        masks, absences = (
            is_accepted_nc[:, channel] & is_found,
            is_accepted_nc[:, channel] & ~is_found,
        )
        hit, predicted, _ = (int(total) for total in counts_n3[masks].sum(axis=0))
        num_absences = int(absences.sum())
        right = int((counts_n3[absences, 2] == 0).sum())
        accepted.append(
            AcceptedPredictions(
                masks=int(is_found.sum()),
                masks_trusted=int(masks.sum()),
                precision=hit / predicted if predicted else math.nan,
                absences=int((~is_found).sum()),
                absences_trusted=num_absences,
                absences_right=right / num_absences if num_absences else math.nan,
            )
        )
    return accepted
