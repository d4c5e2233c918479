"""A cheap first look that tells which strips are surely clean, and how often it is wrong.

A small network gives each strip a suspicion; strips below a cut are clean without a second look.
The suspicion of a classifier is its presence, that of masks is where they are surest.
The cut is chosen so that at most a given share of the defective strips lies below it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from steelseg.errors import DataError
from steelseg.scoring.postprocess import to_uint8

# A defect of a few pixels fills a block of this side; noise of single pixels does not.
_BLOCK = 8

# Of the normal distribution, for an interval of 95 %.
_Z = 1.959964


def suspicion(probs_chw: NDArray[np.uint8]) -> float:
    """The highest mean probability of a block of 8x8 pixels of any class.

    Args:
        probs_chw: Probabilities times 255, as `to_uint8` rounds them.

    Returns:
        In [0, 1].
    """
    return max(suspicions(probs_chw))


def suspicions(probs_chw: NDArray[np.uint8]) -> list[float]:
    """The highest mean probability of a block of 8x8 pixels of each class; see `suspicion`."""
    return [_surest(np.ascontiguousarray(probs_hw)) / 255 for probs_hw in probs_chw]


def _surest(probs_hw: NDArray[np.uint8]) -> float:
    """The highest mean of a block; of a classifier's map that is any pixel."""
    low, high, *_ = cv2.minMaxLoc(probs_hw)
    return high if low == high else float(cv2.blur(probs_hw, (_BLOCK, _BLOCK)).max())


def suspicion_of(
    probs_chw: NDArray[np.float32], presence_c: NDArray[np.float32], *, by_presence: bool
) -> float:
    """How likely a strip has a defect at all, by what a network says of it.

    Args:
        probs_chw: Probabilities in [0, 1]; not read of a classifier.
        presence_c: Presence of each class; read of a classifier.
        by_presence: Whether the network is a classifier.

    Returns:
        In [0, 1]. Presence is not rounded: most strips are surer than a 255th.
    """
    return float(presence_c.max()) if by_presence else suspicion(to_uint8(probs_chw))


def choose_cut(suspicions: NDArray[np.float64], *, miss_rate: float) -> float:
    """The highest cut that leaves at most a share of the defective strips below it.

    Args:
        suspicions: Of the defective strips.
        miss_rate: The share, in [0, 1).

    Returns:
        The cut; strips whose suspicion is lower are skipped.

    Raises:
        DataError: if there is no defective strip.
    """
    if not len(suspicions):
        raise DataError("No strip has a defect, so nobody can tell what a first look would miss.")
    return float(np.sort(suspicions)[math.floor(miss_rate * len(suspicions))])


@dataclass(frozen=True)
class Looks:
    """What a first look does to some strips."""

    defective: int
    """Strips with a defect."""

    missed: int
    """Of them, skipped."""

    clean: int
    """Strips without a defect."""

    skipped: int
    """Of them, skipped."""

    @property
    def missed_interval(self) -> tuple[float, float]:
        """95 % interval of the share that is missed (Wilson 1927)."""
        n, share = self.defective, self.missed / self.defective
        middle = share + _Z**2 / (2 * n)
        half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
        scale = 1 + _Z**2 / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def cross_fit(
    suspicion_of: Mapping[str, float],
    is_defective: Mapping[str, bool],
    fold_of: Mapping[str, int],
    *,
    miss_rate: float,
) -> dict[str, bool]:
    """Skip the strips of each fold by the cut that the other folds choose.

    Args:
        suspicion_of: Suspicion of each strip, by image_id.
        is_defective: Whether it has a defect.
        fold_of: Its fold.
        miss_rate: As `choose_cut` takes it.

    Returns:
        Whether each strip is skipped.

    Raises:
        DataError: if the other folds have no defective strip.
    """
    cuts = {
        fold: choose_cut(
            np.array(
                [s for i, s in suspicion_of.items() if is_defective[i] and fold_of[i] != fold]
            ),
            miss_rate=miss_rate,
        )
        for fold in sorted(set(fold_of.values()))
    }
    return {i: s < cuts[fold_of[i]] for i, s in suspicion_of.items()}


def count_looks(is_skipped: Mapping[str, bool], is_defective: Mapping[str, bool]) -> Looks:
    """Count what is skipped, and what of it should not have been."""
    missed = sum(skip and is_defective[i] for i, skip in is_skipped.items())
    defective = sum(is_defective[i] for i in is_skipped)
    return Looks(
        defective=defective,
        missed=missed,
        clean=len(is_skipped) - defective,
        skipped=sum(is_skipped.values()) - missed,
    )
