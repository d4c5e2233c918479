"""Whether what networks say of a strip can be taken for its label.

Two tests, class by class. *Agreement*: the mask of every vote (a view of the strip by a network)
against the mask of their mean, by the competition's Dice. *Sureness* of the mean: inside a mask
the mean probability; of a class without a mask 1 minus its `suspicion`, so that a class is surely
absent where no block of it is likely. From what sureness on is a `Trust`: given, or chosen on
strips with a truth, so that what is trusted is right as often as is asked for.

Axes: v votes, n strips, c classes, h height, w width. No files, no torch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from steelseg.scoring.metrics import count_pixels, dice
from steelseg.scoring.screening import suspicions


@dataclass(frozen=True)
class Trust:
    """From what sureness on a class is taken as it is seen; infinity never trusts it."""

    found: tuple[float, ...]
    """Least mean probability inside a mask, one value a class."""

    absent: tuple[float, ...]
    """Least 1 - suspicion of a class without a mask, one value a class."""

    def least(self, is_found_c: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What each class must reach, shape (C,); `is_found_c` says which have a mask."""
        return np.where(is_found_c, self.found, self.absent)


def agreement(
    masks_vchw: Sequence[NDArray[np.bool_]], mean_chw: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """The Dice of the vote that is farthest from the mean, of each class.

    Args:
        masks_vchw: Masks of each vote, shape (C, H, W).
        mean_chw: Masks of the mean of their probabilities.

    Returns:
        In [0, 1], shape (C,); 1 where vote and mean are empty.
    """
    dices_vc = [dice(count_pixels(mask_chw, mean_chw)) for mask_chw in masks_vchw]
    lowest: NDArray[np.float64] = np.min(dices_vc, axis=0)
    return lowest


def sureness(probs_chw: NDArray[np.uint8], mask_chw: NDArray[np.bool_]) -> NDArray[np.float64]:
    """How sure the networks are of each class as they see it.

    Args:
        probs_chw: Probabilities times 255, as `to_uint8` rounds them.
        mask_chw: The masks made of them.

    Returns:
        In [0, 1], shape (C,): of a class with a mask the mean probability inside it, else 1 minus
        its suspicion.
    """
    absent = 1 - np.array(suspicions(probs_chw))
    pairs = zip(probs_chw, mask_chw, absent, strict=True)
    return np.array([float(p[m].mean()) / 255 if m.any() else float(a) for p, m, a in pairs])


def choose_trust(
    sureness_nc: NDArray[np.float64], counts_nc3: NDArray[np.int64], *, precision: float
) -> Trust:
    """Trust as much as possible, as long as what is trusted is right often enough.

    Args:
        sureness_nc: What `sureness` gives of strips with a truth.
        counts_nc3: What `count_pixels` gives of their masks and the truth.
        precision: Least share of the pixels of the trusted masks that are right, and least share
            of the trusted absences.

    Returns:
        For each class the lowest sureness that reaches it; infinity where none does.
    """
    found, absent = [], []
    for sure_n, counts_n3 in zip(sureness_nc.T, counts_nc3.transpose(1, 0, 2), strict=True):
        hit_n, predicted_n, truth_n = counts_n3.T
        is_found_n = predicted_n > 0
        masks, others = np.flatnonzero(is_found_n), np.flatnonzero(~is_found_n)
        found.append(_lowest(sure_n[masks], hit_n[masks], predicted_n[masks], precision))
        is_right = truth_n[others] == 0
        absent.append(_lowest(sure_n[others], is_right, np.ones(len(others)), precision))
    return Trust(tuple(found), tuple(absent))


def _lowest(
    sure: NDArray[np.float64], right: NDArray[np.generic], whole: NDArray[np.generic], target: float
) -> float:
    """The lowest sureness from which on `right` makes up the target's share of `whole`."""
    order = np.argsort(-sure, kind="stable")
    shares = np.cumsum(right[order]) / np.cumsum(whole[order])
    values = sure[order]
    # Those that are as sure as another are trusted with it.
    is_last = np.append(values[1:] != values[:-1], True)[: len(values)]
    reaching = np.flatnonzero((shares >= target) & is_last)
    return float(values[reaching[-1]]) if len(reaching) else math.inf


@dataclass(frozen=True)
class Trusted:
    """What a `Trust` does to strips with a truth, in one class."""

    masks: int
    """Masks that are predicted."""

    masks_trusted: int
    """Of them, trusted."""

    precision: float
    """Share of the pixels of those that are right; NaN without any."""

    absences: int
    """Strips on which the class is not predicted."""

    absences_trusted: int
    """Of them, trusted."""

    absences_right: float
    """Share of those that do not show the class; NaN without any."""


def judge_trust(
    sureness_nc: NDArray[np.float64], counts_nc3: NDArray[np.int64], trust: Trust
) -> list[Trusted]:
    """Say of each class what a trust keeps, and how often it is right; arguments as before."""
    is_found_nc = counts_nc3[..., 1] > 0
    kept_nc = sureness_nc >= trust.least(is_found_nc)
    judged = []
    for channel in range(sureness_nc.shape[1]):
        counts_n3, is_found = counts_nc3[:, channel], is_found_nc[:, channel]
        masks, absences = kept_nc[:, channel] & is_found, kept_nc[:, channel] & ~is_found
        hit, predicted, _ = (int(total) for total in counts_n3[masks].sum(axis=0))
        num_absences = int(absences.sum())
        right = int((counts_n3[absences, 2] == 0).sum())
        judged.append(
            Trusted(
                masks=int(is_found.sum()),
                masks_trusted=int(masks.sum()),
                precision=hit / predicted if predicted else math.nan,
                absences=int((~is_found).sum()),
                absences_trusted=num_absences,
                absences_right=right / num_absences if num_absences else math.nan,
            )
        )
    return judged
