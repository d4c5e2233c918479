"""Screening of strips by a cheap network: which ones can skip the full model, and at which risk.

The cheap network gives each strip a defect score: presence for a classifier, otherwise the highest
mean probability of a small block. Strips with a score below the cutoff skip the full model. The
cutoff is the highest that misses at most a given fraction of the defective strips.

No files, no torch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError
from steelseg.scoring.postprocess import to_uint8

# Side of a block in pixels. A defect fills such a block; noise of single pixels does not.
_BLOCK = 8

# Quantile of the normal distribution for a 95 % interval.
_Z = 1.959964


def defect_score(probs_chw: NDArray[np.uint8]) -> float:
    """Return the highest mean probability of a block of 8x8 pixels of any class.

    Args:
        probs_chw: Probabilities times 255, as `to_uint8` rounds them.

    Returns:
        In [0, 1].
    """
    return max(defect_scores(probs_chw))


def defect_scores(probs_chw: NDArray[np.uint8]) -> list[float]:
    """Return the highest mean probability of a block for each class; see `defect_score`."""
    return [_highest_mean(np.ascontiguousarray(probs_hw)) / 255 for probs_hw in probs_chw]


def _highest_mean(probs_hw: NDArray[np.uint8]) -> float:
    """Return the highest mean of a block; for the constant map of a classifier its value."""
    low, high, *_ = cv2.minMaxLoc(probs_hw)
    return high if low == high else float(cv2.blur(probs_hw, (_BLOCK, _BLOCK)).max())


def defect_score_of(
    probs_chw: NDArray[np.float32], presence_c: NDArray[np.float32], *, by_presence: bool
) -> float:
    """Return the defect score of a strip from the output of a network.

    Args:
        probs_chw: Probabilities in [0, 1]; ignored for a classifier.
        presence_c: Presence of each class; used for a classifier.
        by_presence: Whether the network is a classifier.

    Returns:
        In [0, 1]. Presence is not rounded, because most strips differ by less than 1/255.
    """
    return float(presence_c.max()) if by_presence else defect_score(to_uint8(probs_chw))


def choose_cutoff(scores: NDArray[np.float64], *, miss_rate: float) -> float:
    """Return the highest cutoff below which there is at most a given fraction of defective strips.

    Args:
        scores: Defect scores of the defective strips.
        miss_rate: The fraction, in [0, 1).

    Returns:
        The cutoff; strips with a lower score are skipped.

    Raises:
        DataError: if there is no defective strip.
    """
    if not len(scores):
        raise DataError("No strip has a defect, so the miss rate of screening cannot be estimated.")
    return float(np.sort(scores)[math.floor(miss_rate * len(scores))])


@dataclass(frozen=True)
class ScreeningResult:
    """Counts of strips after screening."""

    defective: int
    """Strips with a defect."""

    missed: int
    """Skipped strips with a defect."""

    clean: int
    """Strips without a defect."""

    skipped: int
    """Skipped strips without a defect."""

    @property
    def missed_interval(self) -> tuple[float, float]:
        """95 % interval of the fraction that is missed (Wilson 1927)."""
        n, share = self.defective, self.missed / self.defective
        middle = share + _Z**2 / (2 * n)
        half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
        scale = 1 + _Z**2 / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def cross_fit(
    score_of: Mapping[str, float],
    is_defective: Mapping[str, bool],
    fold_of: Mapping[str, int],
    *,
    miss_rate: float,
) -> dict[str, bool]:
    """Skip the strips of each inner fold by a cutoff that is chosen on the others.

    Args:
        score_of: Defect score of each strip, by image_id.
        is_defective: Whether it has a defect.
        fold_of: Its inner fold.
        miss_rate: As in `choose_cutoff`.

    Returns:
        Whether each strip is skipped.

    Raises:
        DataError: if the other inner folds have no defective strip.
    """
    cuts = {
        fold: choose_cutoff(
            np.array([s for i, s in score_of.items() if is_defective[i] and fold_of[i] != fold]),
            miss_rate=miss_rate,
        )
        for fold in sorted(set(fold_of.values()))
    }
    return {i: score < cuts[fold_of[i]] for i, score in score_of.items()}


def count_screened(
    is_skipped: Mapping[str, bool], is_defective: Mapping[str, bool]
) -> ScreeningResult:
    """Count skipped strips, and those of them with a defect."""
    missed = sum(skip and is_defective[i] for i, skip in is_skipped.items())
    defective = sum(is_defective[i] for i in is_skipped)
    return ScreeningResult(
        defective=defective,
        missed=missed,
        clean=len(is_skipped) - defective,
        skipped=sum(is_skipped.values()) - missed,
    )
